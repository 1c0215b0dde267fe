"""How far a few marks can be trusted: intervals and tests, SciPy's but for what a line needs without it."""

import math
from dataclasses import dataclass
from typing import Any

from runtime.common.binomial import at_least
from runtime.common.errors import UserError

CONFIDENCE = 0.95  # of an interval
LUCK = 0.05  # the largest probability that an improvement may have by luck alone
FEWEST = math.ceil(math.log(LUCK, 0.5))  # marks that a candidate must set right, without a new mistake: 0.5^5 = 0.031
CURE = "pip install 'cflow-edge[statistics]'"


@dataclass(frozen=True)
class Share:
    """`count` of `of`, with the interval that the true share lies in (Clopper-Pearson, 95 %)."""

    count: int
    of: int

    @property
    def interval(self) -> tuple[float, float]:
        """The bounds, as shares; of nothing they are 0 and 1."""
        if not self.of:
            return 0.0, 1.0
        found = _stats().binomtest(self.count, self.of).proportion_ci(CONFIDENCE, "exact")
        return float(found.low), float(found.high)

    def text(self) -> str:
        """Return it for a person."""
        if not self.of:
            return "none known"
        low, high = (f"{100 * bound:.3g}" for bound in self.interval)
        return f"{self.count} of {self.of} ({low} to {high} %)"

    def fields(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {"count": self.count, "of": self.of, "interval": list(self.interval)}


def by_luck(better: int, worse: int) -> float:
    """Return how likely luck alone sets at least so many right, of so many that changed (sign test, one-sided)."""
    return at_least(better, better + worse)


def by_chance(count: int, of: int, share: float) -> float:
    """Return how likely at least `count` of `of` are hit, where chance hits each with probability `share`."""
    return float(_stats().binomtest(count, of, share, "greater").pvalue)


def _stats() -> Any:
    try:
        from scipy import stats
    except ModuleNotFoundError:
        raise UserError("intervals need SciPy", "none", CURE) from None
    return stats
