"""`cable.onnx` to `cable.fp16.onnx` or `cable.int8.onnx`: the graph itself carries the types.

TensorRT from 10 on reads precision from the graph and nothing else, so this is where it is decided:

- FP16 (`export.fp16`): the encoder as a whole, and in the decoders the products and the subnets' hidden layers.
  The transformed state, tanh, exp, log-determinants, norms and the map stay FP32.
- INT8 (`export.int8`): symmetric Q/DQ in front of convolutions and the subnets' products, and FP16 for the layers
  that are left out. The permutations are, unless asked for: they carry the state itself, and a range seen on
  good images would clip away exactly what a defect does.
"""

import argparse
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import onnx
import onnx_graphsurgeon as gs

from export.calibration import METHODS, Range, collect_ranges
from export.calibration_data import DEFAULT_FOLDER, CalibrationData, read_calibration_data
from export.fp16 import decoder_products, type_encoder, type_products
from export.int8 import permutation_layers, quantise
from export.onnx_files import check_takes_input_size, get_info, load_model, save_model, set_info
from export.products import WEIGHTED
from runtime.common.errors import UserError, run_command
from runtime.engines.sidecar import sidecar_path


def to_fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the fused FP32 `model` with FP16 convolutions and matrix products."""
    graph = gs.import_onnx(model)
    type_encoder(graph)
    type_products(graph, decoder_products(graph))
    return _finish(model, graph, "fp16")


def to_int8(
    model: onnx.ModelProto, ranges: Mapping[str, Range], *, kept: Collection[str] | None = None
) -> onnx.ModelProto:
    """Return the fused FP32 `model` with symmetric Q/DQ; `ranges` maps tensor names to (lowest, highest).

    The layers named in `kept` (None: the permutations) are FP16 instead.
    """
    graph = gs.import_onnx(model)
    quantise(graph, ranges, permutation_layers(model) if kept is None else kept)
    return _finish(model, graph, "int8")


def _finish(model: onnx.ModelProto, graph: gs.Graph, precision: str) -> onnx.ModelProto:
    graph.cleanup(remove_unused_graph_inputs=False).toposort()
    typed = gs.export_onnx(graph)
    typed.ir_version = model.ir_version
    del typed.graph.value_info[:]
    typed = onnx.shape_inference.infer_shapes(typed, strict_mode=True, data_prop=True)
    set_info(typed, replace(get_info(model, "the fused model"), precision=precision))
    return typed


def calibrated_int8(
    model: onnx.ModelProto, data: CalibrationData, *, method: str = "minmax", quantise_permutations: bool = False
) -> onnx.ModelProto:
    """Measure ranges on the calibration images and return the INT8 model."""
    size = get_info(model, "the fused model").metadata.input_size
    ranges = collect_ranges(model, data, size, WEIGHTED, method)
    return to_int8(model, ranges, kept=() if quantise_permutations else None)


def main(argv: Sequence[str] | None = None) -> None:
    """Type a fused ONNX from the command line."""
    parser = argparse.ArgumentParser(prog="python -m export.precision", description=__doc__.split("\n")[0])
    parser.add_argument("onnx", type=Path, help="a fused ONNX written by export.fuse")
    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument("--fp16", action="store_true")
    kind.add_argument("--int8", action="store_true")
    parser.add_argument("--calibration-data", type=Path, default=DEFAULT_FOLDER, help="good images (with --int8)")
    parser.add_argument("--calibrator", choices=METHODS, default="minmax", help="how ranges are chosen (with --int8)")
    parser.add_argument("--quantise-permutations", action="store_true", help="INT8 for the permutations too")
    options = parser.parse_args(argv)
    model = load_model(options.onnx)
    info = get_info(model, options.onnx.name)
    check_takes_input_size(info, options.onnx.name)
    if not info.fused:
        raise UserError(f"{options.onnx} must be fused", "an unfused export", "run export.fuse on it first")
    if options.fp16:
        typed, name = to_fp16(model), "fp16"
    else:
        data = read_calibration_data(options.calibration_data)
        permutations = options.quantise_permutations
        typed = calibrated_int8(model, data, method=options.calibrator, quantise_permutations=permutations)
        name = "int8"
    out = sidecar_path(options.onnx).with_suffix(f".{name}.onnx")
    save_model(typed, out)
    print(f"wrote {out}")


def command() -> int:
    """Run as a console script."""
    return run_command(main)


if __name__ == "__main__":
    sys.exit(command())
