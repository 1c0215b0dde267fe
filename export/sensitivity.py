"""Which layers INT8 costs most, and which of them to leave out of it so that a budget is met.

    python -m export.sensitivity cable.onnx --calibration-data good_images/ [--labelled DATASET]

Every group of layers (a block of the encoder; a tap's first or last subnet layers, or its permutations) is quantised
alone and compared with FP32. The groups are freed, the costliest first, as few as meet the budget: a bisection over
the ranking, each step measured. A freed layer is FP16.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from export.calibration import Range
from export.int8 import permutation_layers, weighted_layers
from export.parity import POINTS_PER_NOISE, Answers, Budget, Parity, answers_of, compare_answers
from export.parity_images import Images
from export.precision import to_int8
from export.products import WEIGHTED
from runtime.text_table import align

RANKING_IMAGES = 16  # every group is judged on so many: their order needs fewer than the budget does


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


@dataclass(frozen=True, eq=False)
class Choice:
    """An INT8 graph, the layers that were left out of it, and what that leaves it to cost."""

    model: onnx.ModelProto
    kept: frozenset[str]
    freed: tuple[str, ...]  # groups
    ranking: tuple[GroupCost, ...]
    parity: Parity | None
    int8_share: float  # of all weighted layers' multiply-adds


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
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
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
    progress: Callable[[str], None] = lambda _: None,
) -> tuple[GroupCost, ...]:
    """Quantise every group alone and return their costs on `images`, the costliest first."""
    groups, spent = layer_groups(model), multiply_adds(model)
    names, total = set(weighted_layers(model)), sum(spent.values())
    reference = answers_of(model, images)
    costs = []
    for name, layers in groups.items():
        progress(name)
        typed = to_int8(model, ranges, kept=names - set(layers))
        parity = compare_answers(reference, answers_of(typed, images), images, threshold)
        costs.append(GroupCost(name, layers, sum(spent[layer] for layer in layers) / total, parity))
    return tuple(sorted(costs, key=lambda cost: -cost.points))


@dataclass(frozen=True, eq=False)
class Search:
    """What a choice is made from: the fused FP32 `model`, its ranges, the images and the budget they are held to.

    `always_kept` are the layers that are out of INT8 whatever they cost.
    """

    model: onnx.ModelProto
    ranges: Mapping[str, Range]
    images: Images
    threshold: float
    budget: Budget
    always_kept: frozenset[str]

    def choose(self, progress: Callable[[str], None] = lambda _: None) -> Choice:
        """Free as few groups as meet the budget. Where even all do not, that is what is returned, with its costs."""
        reference = answers_of(self.model, self.images)
        choice = self._freed((), reference)
        if self._enough(choice):
            return choice
        few = self.images.spread(RANKING_IMAGES)
        ranking = rank_groups(self.model, self.ranges, few, self.threshold, progress)
        candidates = tuple(cost for cost in ranking if not set(cost.layers) <= self.always_kept)
        low, high, best = 0, len(candidates), None  # freeing `low` of them misses the budget
        while high - low > 1:
            middle = (low + high) // 2
            choice = self._freed(candidates[:middle], reference, ranking)
            if self._enough(choice):
                high, best = middle, choice
            else:
                low = middle
        return best or self._freed(candidates, reference, ranking)

    def _enough(self, choice: Choice) -> bool:
        return choice.parity is not None and not self.budget.excess(choice.parity)

    def default(self) -> Choice:
        """Free nothing and measure nothing: for where no image can judge."""
        typed = to_int8(self.model, self.ranges, kept=self.always_kept)
        return Choice(typed, self.always_kept, (), (), None, int8_share(self.model, self.always_kept))

    def _freed(self, groups: Sequence[GroupCost], reference: Answers, ranking: tuple[GroupCost, ...] = ()) -> Choice:
        kept = self.always_kept.union(*(group.layers for group in groups))
        typed = to_int8(self.model, self.ranges, kept=kept)
        parity = compare_answers(reference, answers_of(typed, self.images), self.images, self.threshold)
        names = tuple(group.name for group in groups)
        return Choice(typed, kept, names, ranking, parity, int8_share(self.model, kept))


def int8_share(model: onnx.ModelProto, kept: Collection[str]) -> float:
    """Return the share of the weighted layers' multiply-adds that are INT8 when `kept` are not."""
    spent = multiply_adds(model)
    return sum(cost for name, cost in spent.items() if name not in kept) / sum(spent.values())


def kept_by_default(model: onnx.ModelProto, quantise_permutations: bool) -> frozenset[str]:
    """Return the layers that stay out of INT8 unless asked for: the permutations, which carry the state itself."""
    return frozenset() if quantise_permutations else permutation_layers(model)


def ranking_table(ranking: Sequence[GroupCost], freed: Collection[str] = ()) -> str:
    """Return the ranking as a table of text, the costliest group first; AUROC where labels told it."""
    labelled = any(cost.parity.measured for cost in ranking)
    header = ["group quantised alone", "multiply-adds %", "image noise", "pixel noise", "AUROC points, estimated"]
    rows = [header + (["image AUROC lost", "pixel AUROC lost"] if labelled else []) + [""]]
    for cost in ranking:
        parity = cost.parity
        row = [cost.name, f"{100 * cost.share:.1f}", f"{parity.image_noise:.3f}", f"{parity.pixel_noise:.3f}"]
        row += [f"{cost.points:.3f}"] + ([f"{parity.image_cost:+.2f}", f"{parity.pixel_cost:+.2f}"] if labelled else [])
        rows.append([*row, "FP16" if cost.name in freed else ""])
    return align(rows)
