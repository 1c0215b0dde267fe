"""What INT8 costs, group of layers by group: `python -m export.sensitivity cable.onnx --calibration-data DIR`.

Every group (a block of the encoder; a tap's first or last subnet layers, or its permutations) is quantised alone and
compared with FP32, on good images or on labelled ones.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from export.calibration_data import DEFAULT_FOLDER, read_calibration_data
from export.graph.onnx_files import foreign_graph, get_info, load_model
from export.graph.tiled_frame import tile_network
from export.graph.weighted_layers import WEIGHTED
from export.images.parity_images import read_good, read_labelled
from export.precisions.answers import Reference
from export.precisions.calibration_checks import check_different
from export.precisions.ranges import METHODS, collect_ranges
from export.precisions.ranking import (
    RANKING_IMAGES,
    rank_groups,
    ranking_table,
)
from runtime.common.errors import UserError, run_command
from runtime.common.program import program_name
from runtime.images.preprocess import ReadOptions


def main(argv: Sequence[str] | None = None) -> None:
    """Print the ranking of a fused ONNX."""
    parser = argparse.ArgumentParser(
        prog=program_name("python -m export.sensitivity"), description=__doc__.split("\n")[0]
    )
    parser.add_argument("onnx", type=Path, help="a fused ONNX written by export.fuse")
    parser.add_argument("--calibration-data", type=Path, default=DEFAULT_FOLDER, help="good images, for the ranges")
    parser.add_argument("--calibrator", choices=METHODS, default="minmax", help="how ranges are chosen")
    parser.add_argument("--labelled", type=Path, metavar="DIR", help="MVTec-style test images: AUROC as well")
    options = parser.parse_args(argv)
    with foreign_graph(options.onnx):
        model = tile_network(load_model(options.onnx))
        info = get_info(model, options.onnx.name)
        if not info.fused or info.precision != "fp32":
            found = info.precision if info.fused else "an unfused export"
            raise UserError(f"{options.onnx} must be a fused FP32 graph", found, "name the cable.onnx of export.fuse")
        data, size = read_calibration_data(options.calibration_data), info.sidecar.input_size
        read, tiles = ReadOptions(info.sidecar.white), info.sidecar.tiles
        check_different(data, size, read, print)
        ranges = collect_ranges(model, data, size, WEIGHTED, options.calibrator, read, tiles)
        if options.labelled is None:
            images = read_good(data, size, RANKING_IMAGES, read, tiles)
        else:
            images = read_labelled(options.labelled, size, read, tiles)
        print(ranking_table(rank_groups(Reference(model), ranges, images, info.sidecar.threshold.value)))


def command() -> int:
    """Run as a console script."""
    return run_command(main)


if __name__ == "__main__":
    sys.exit(command())
