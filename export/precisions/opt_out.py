"""Which layers to leave out of INT8 so that a budget is met: as few of the costliest as it takes.

Start from all quantised and measure. If that misses the budget, rank the groups of layers by what each costs alone
(`export.sensitivity`) and find, by bisection, how many of the ranking to free; every step is measured on the images
that the budget is for. A freed layer is FP16.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx

from export.images.parity_images import Images
from export.precisions.answers import Reference, answers_of
from export.precisions.int8 import permutation_layers
from export.precisions.parity import Budget, Parity, compare_answers
from export.precisions.ranges import Range
from export.precisions.ranking import RANKING_IMAGES, RANKING_LABELLED, GroupCost, int8_share, rank_groups
from export.precisions.typing import to_int8


@dataclass(frozen=True, eq=False)
class Choice:
    """An INT8 graph, the layers that were left out of it, and what that leaves it to cost."""

    model: onnx.ModelProto
    left_out: frozenset[str]
    freed: tuple[str, ...]  # groups
    ranking: tuple[GroupCost, ...]
    parity: Parity | None
    int8_share: float  # of all weighted layers' multiply-adds


@dataclass(frozen=True, eq=False)
class Search:
    """What a choice is made from: the fused FP32 graph, its ranges, the images and the budget they are held to.

    `always_left_out` are the layers that are out of INT8 whatever they cost.
    """

    reference: Reference
    ranges: Mapping[str, Range]
    images: Images
    threshold: float
    budget: Budget
    always_left_out: frozenset[str]

    def choose(self) -> Choice:
        """Free as few groups as meet the budget. Where even all do not, that is what is returned, with its costs."""
        choice = self._freed(())
        if self._enough(choice):
            return choice
        few = self.images.spread(RANKING_LABELLED if self.images.labelled else RANKING_IMAGES)
        ranking = rank_groups(self.reference, self.ranges, few, self.threshold)
        candidates = tuple(cost for cost in ranking if not set(cost.layers) <= self.always_left_out)
        low, high, best = 0, len(candidates), None  # freeing `low` of them misses the budget
        while high - low > 1:
            middle = (low + high) // 2
            choice = self._freed(candidates[:middle], ranking)
            if self._enough(choice):
                high, best = middle, choice
            else:
                low = middle
        return best or self._freed(candidates, ranking)

    def _enough(self, choice: Choice) -> bool:
        return choice.parity is not None and not self.budget.excess(choice.parity)

    def default(self) -> Choice:
        """Free nothing and measure nothing: for where no image can judge."""
        model = self.reference.model
        typed = to_int8(model, self.ranges, left_out=self.always_left_out)
        return Choice(typed, self.always_left_out, (), (), None, int8_share(model, self.always_left_out))

    def _freed(self, groups: Sequence[GroupCost], ranking: tuple[GroupCost, ...] = ()) -> Choice:
        model, images = self.reference.model, self.images
        left_out = self.always_left_out.union(*(group.layers for group in groups))
        typed = to_int8(model, self.ranges, left_out=left_out)
        parity = compare_answers(self.reference.answers(images), answers_of(typed, images), images, self.threshold)
        names = tuple(group.name for group in groups)
        return Choice(typed, left_out, names, ranking, parity, int8_share(model, left_out))


def left_out_by_default(model: onnx.ModelProto, quantise_permutations: bool) -> frozenset[str]:
    """Return the layers that stay out of INT8 unless asked for: the permutations, which carry the state itself."""
    return frozenset() if quantise_permutations else permutation_layers(model)
