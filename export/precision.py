"""`cable.onnx` to `cable.fp16.onnx` or `cable.int8.onnx`: the graph itself carries the types.

TensorRT from 10 on reads precision from the graph and nothing else, so this is where it is decided:

- FP16 (`export.precisions.fp16`): the encoder as a whole, and in the decoders the products and the subnets' hidden
  layers, limited so that none overflows; the encoder has no such limit. The transformed state, tanh, exp,
  log-determinants, norms and the map stay FP32.
- INT8 (`export.precisions.int8`): symmetric Q/DQ in front of convolutions and the subnets' products, and FP16 for
  the layers that are left out. The permutations are, unless asked for: they carry the state itself, and a range seen
  on good images would clip away exactly what a defect does.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from export.calibration_data import DEFAULT_FOLDER, read_calibration_data
from export.graph.onnx_files import (
    check_no_engines,
    check_takes_input_size,
    foreign_graph,
    get_info,
    load_model,
    save_model,
)
from export.graph.tiled_frame import put_into_frame, tile_network, tiles_at_once
from export.precisions.calibration_checks import check_different
from export.precisions.ranges import METHODS
from export.precisions.typing import calibrated_int8, to_fp16
from runtime.common.errors import UserError, run_command
from runtime.common.program import program_name
from runtime.engines.sidecar import sidecar_path
from runtime.images.preprocess import ReadOptions


def main(argv: Sequence[str] | None = None) -> None:
    """Type a fused ONNX from the command line."""
    parser = argparse.ArgumentParser(
        prog=program_name("python -m export.precision"), description=__doc__.split("\n")[0]
    )
    parser.add_argument("onnx", type=Path, help="a fused ONNX written by export.fuse")
    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument("--fp16", action="store_true")
    kind.add_argument("--int8", action="store_true")
    parser.add_argument("--calibration-data", type=Path, default=DEFAULT_FOLDER, help="good images (with --int8)")
    parser.add_argument("--calibrator", choices=METHODS, default="minmax", help="how ranges are chosen (with --int8)")
    parser.add_argument("--quantise-permutations", action="store_true", help="INT8 for the permutations too")
    options = parser.parse_args(argv)
    name = "fp16" if options.fp16 else "int8"
    out = sidecar_path(options.onnx).with_suffix(f".{name}.onnx")
    check_no_engines(out)
    with foreign_graph(options.onnx):
        whole = load_model(options.onnx)
        model = tile_network(whole)
        info = get_info(model, options.onnx.name)
        check_takes_input_size(info, options.onnx.name)
        if not info.fused:
            raise UserError(f"{options.onnx} must be fused", "an unfused export", "run export.fuse on it first")
        if options.fp16:
            typed = to_fp16(model)
        else:
            data = read_calibration_data(options.calibration_data)
            check_different(data, info.sidecar.input_size, ReadOptions(info.sidecar.white), print)
            permutations = options.quantise_permutations
            typed = calibrated_int8(model, data, method=options.calibrator, quantise_permutations=permutations)
        save_model(put_into_frame(typed, tiles_at_once(whole)), out)
        print(f"wrote {out}")


def command() -> int:
    """Run as a console script."""
    return run_command(main)


if __name__ == "__main__":
    sys.exit(command())
