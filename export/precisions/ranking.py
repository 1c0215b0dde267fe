"""What quantising each group of layers alone costs, the costliest first.

A group is a block of the encoder, or a tap's first or last subnet layers, or its permutations.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from tqdm import tqdm

from export.graph.weighted_layers import WEIGHTED
from export.images.parity_images import Images
from export.precisions.answers import Reference
from export.precisions.common_part import judge_rests, rest_of
from export.precisions.int8 import weighted_layers
from export.precisions.parity import POINTS_PER_NOISE, Parity, areas, compare_answers
from export.precisions.ranges import Range
from export.precisions.typing import int8_graph, to_int8
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
    for each in single.graph.input:
        each.type.tensor_type.shape.dim[0].dim_value = 1
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
    reference: Reference,
    ranges: Mapping[str, Range],
    images: Images,
    threshold: float,
) -> tuple[GroupCost, ...]:
    """Quantise every group alone and return their costs on `images`, the costliest first.

    Of each such graph only what is behind the group is computed (`export.precisions.common_part`).
    """
    model = reference.model
    groups, spent = layer_groups(model), multiply_adds(model)
    names, total = set(weighted_layers(model)), sum(spent.values())
    common, exact = to_int8(model, ranges, left_out=names), reference.answers(images)
    areas(exact, images)  # known before several ask for them at once
    rests = [rest_of(common, int8_graph(model, ranges, names - set(layers))) for layers in groups.values()]
    judged = judge_rests(common, rests, images, lambda found: compare_answers(exact, found, images, threshold))
    parities = tqdm(judged, total=len(groups), desc="ranking layers", unit="group", disable=None)
    costs = [
        GroupCost(name, layers, sum(spent[layer] for layer in layers) / total, parity)
        for (name, layers), parity in zip(groups.items(), parities, strict=True)
    ]
    return tuple(sorted(costs, key=lambda cost: -cost.points))


def int8_share(model: onnx.ModelProto, left_out: Collection[str]) -> float:
    """Return the share of the weighted layers' multiply-adds that are INT8 when `left_out` are not."""
    spent = multiply_adds(model)
    return sum(cost for name, cost in spent.items() if name not in left_out) / sum(spent.values())


def ranking_table(ranking: Sequence[GroupCost], left_out: Collection[str] = ()) -> str:
    """Return the ranking as text; AUROC where labels told it. Groups of `left_out` layers are marked FP16."""
    labelled = any(cost.parity.measured for cost in ranking)
    header = ["group quantised alone", "multiply-adds %", "image noise", "pixel noise", "AUROC points, estimated"]
    rows = [header + (["image AUROC lost", "pixel AUROC lost"] if labelled else []) + [""]]
    for cost in ranking:
        parity = cost.parity
        row = [cost.name, f"{100 * cost.share:.1f}", f"{parity.image_noise:.3f}", f"{parity.pixel_noise:.3f}"]
        row += [f"{cost.points:.3f}"] + ([f"{parity.image_cost:+.2f}", f"{parity.pixel_cost:+.2f}"] if labelled else [])
        rows.append([*row, "FP16" if set(cost.layers) <= set(left_out) else ""])
    return align(rows)
