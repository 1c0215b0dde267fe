"""What INT8 costs, group of layers by group: `python -m export.sensitivity cable.onnx --calibration-data DIR`.

Every group (a block of the encoder; a tap's first or last subnet layers, or its permutations) is quantised alone and
compared with FP32, on good images or on labelled ones.
"""

import argparse
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from tqdm import tqdm

from export.calibration import METHODS, Range, collect_ranges
from export.calibration_data import DEFAULT_FOLDER, read_calibration_data
from export.int8 import weighted_layers
from export.onnx_files import get_info, load_model
from export.parity import POINTS_PER_NOISE, Parity, answers_of, compare_answers
from export.parity_images import Images, read_good, read_labelled
from export.precision import to_int8
from export.products import WEIGHTED
from runtime.common.errors import UserError, run_command
from runtime.common.text_table import align

RANKING_IMAGES = 16  # good ones that every group is judged on: their order needs fewer than the budget does
RANKING_LABELLED = 64  # where labels are known: about a quarter of a test set's are good


@dataclass(frozen=True)
class GroupCost:
    """What quantising one group alone costs. `share` is its part of all weighted layers' multiply-adds."""

    name: str
    layers: tuple[str, ...]
    share: float
    parity: Parity

    @property
    def points(self) -> float:
        """Points of AUROC, image or pixel, as its noise tells: comparable where images are few."""
        return POINTS_PER_NOISE * max(self.parity.image_noise, self.parity.pixel_noise) ** 2


def layer_groups(model: onnx.ModelProto) -> dict[str, tuple[str, ...]]:
    """Return the weighted layers by group, in the order of the graph: `encoder/layer1/0`, `layer2/subnet0`."""
    groups: dict[str, list[str]] = {}
    for name in weighted_layers(model):
        parts = name.split("/")[:-1]
        group = "/".join(parts[:3]) if parts[0] == "encoder" else "/".join((parts[0], *name.split("/")[2:3]))
        groups.setdefault(group, []).append(name)
    return {name: tuple(layers) for name, layers in groups.items()}


def multiply_adds(model: onnx.ModelProto) -> dict[str, int]:
    """Return the multiply-adds that each weighted layer spends on one frame."""
    single = onnx.ModelProto()
    single.CopyFrom(model)
    single.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    del single.graph.value_info[:]  # they name the batch
    graph = onnx.shape_inference.infer_shapes(single, data_prop=True).graph
    shapes = {value.name: [d.dim_value for d in value.type.tensor_type.shape.dim] for value in graph.value_info}
    weights = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    costs = {}
    for node in graph.node:
        if node.op_type in WEIGHTED:
            out, weight = shapes[node.output[0]], weights[node.input[1]]
            positions = int(np.prod(out[2:])) if node.op_type == "Conv" else out[0]
            costs[node.name] = positions * int(np.prod(weight))
    return costs


def rank_groups(
    model: onnx.ModelProto,
    ranges: Mapping[str, Range],
    images: Images,
    threshold: float,
) -> tuple[GroupCost, ...]:
    """Quantise every group alone and return their costs on `images`, the costliest first."""
    groups, spent = layer_groups(model), multiply_adds(model)
    names, total = set(weighted_layers(model)), sum(spent.values())
    reference = answers_of(model, images)
    costs = []
    for name, layers in tqdm(groups.items(), desc="ranking layers", unit="group", disable=None):
        typed = to_int8(model, ranges, kept=names - set(layers))
        parity = compare_answers(reference, answers_of(typed, images), images, threshold)
        costs.append(GroupCost(name, layers, sum(spent[layer] for layer in layers) / total, parity))
    return tuple(sorted(costs, key=lambda cost: -cost.points))


def int8_share(model: onnx.ModelProto, kept: Collection[str]) -> float:
    """Return the share of the weighted layers' multiply-adds that are INT8 when `kept` are not."""
    spent = multiply_adds(model)
    return sum(cost for name, cost in spent.items() if name not in kept) / sum(spent.values())


def ranking_table(ranking: Sequence[GroupCost], kept: Collection[str] = ()) -> str:
    """Return the ranking as a table of text; AUROC where labels told it. Groups of layers in `kept` are marked FP16."""
    labelled = any(cost.parity.measured for cost in ranking)
    header = ["group quantised alone", "multiply-adds %", "image noise", "pixel noise", "AUROC points, estimated"]
    rows = [header + (["image AUROC lost", "pixel AUROC lost"] if labelled else []) + [""]]
    for cost in ranking:
        parity = cost.parity
        row = [cost.name, f"{100 * cost.share:.1f}", f"{parity.image_noise:.3f}", f"{parity.pixel_noise:.3f}"]
        row += [f"{cost.points:.3f}"] + ([f"{parity.image_cost:+.2f}", f"{parity.pixel_cost:+.2f}"] if labelled else [])
        rows.append([*row, "FP16" if set(cost.layers) <= set(kept) else ""])
    return align(rows)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the ranking of a fused ONNX."""
    parser = argparse.ArgumentParser(prog="python -m export.sensitivity", description=__doc__.split("\n")[0])
    parser.add_argument("onnx", type=Path, help="a fused ONNX written by export.fuse")
    parser.add_argument("--calibration-data", type=Path, default=DEFAULT_FOLDER, help="good images, for the ranges")
    parser.add_argument("--calibrator", choices=METHODS, default="minmax", help="how ranges are chosen")
    parser.add_argument("--labelled", type=Path, metavar="DIR", help="MVTec-style test images: AUROC as well")
    options = parser.parse_args(argv)
    model = load_model(options.onnx)
    info = get_info(model, options.onnx.name)
    if not info.fused or info.precision != "fp32":
        found = info.precision if info.fused else "an unfused export"
        raise UserError(f"{options.onnx} must be a fused FP32 graph", found, "name the cable.onnx of export.fuse")
    data, size = read_calibration_data(options.calibration_data), info.metadata.input_size
    ranges = collect_ranges(model, data, size, WEIGHTED, options.calibrator)
    good = options.labelled is None
    images = read_good(data, size, RANKING_IMAGES) if good else read_labelled(options.labelled, size)
    print(ranking_table(rank_groups(model, ranges, images, info.metadata.threshold.value)))


def command() -> int:
    """Run as a console script."""
    return run_command(main)


if __name__ == "__main__":
    sys.exit(command())
