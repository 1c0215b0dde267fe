"""Repeatability and reproducibility by the ANOVA method of AIAG's manual (Measurement Systems Analysis, 4th edition).

A score is y = part + operator + part x operator + repetition; mean squares give the variance of each.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from runtime.common.errors import UserError

POOL_ABOVE = 0.05  # an interaction whose p value is above this is counted with repeatability, as AIAG does
DISTINCT = 1.41  # AIAG's factor of ndc
PER_TOLERANCE = 6.0  # standard deviations that a two-sided tolerance is held to hold; 3 on one side


@dataclass(frozen=True)
class Gauge:
    """Standard deviations, in score units, of what makes up a score's spread.

    `p_interaction` is None with one operator; `pooled`: the interaction was counted with repeatability. `mean` is that
    of all scores.
    """

    repeatability: float
    operators: float
    interaction: float
    parts: float
    p_interaction: float | None
    pooled: bool
    mean: float

    @property
    def reproducibility(self) -> float:
        """Operators, and how they differ from part to part."""
        return math.hypot(self.operators, self.interaction)

    @property
    def grr(self) -> float:
        """Repeatability and reproducibility together."""
        return math.hypot(self.repeatability, self.reproducibility)

    @property
    def total(self) -> float:
        """All of it."""
        return math.hypot(self.grr, self.parts)

    @property
    def grr_percent(self) -> float:
        """%GRR: of the total spread."""
        return 100 * self.grr / self.total if self.total else math.nan

    @property
    def ndc(self) -> int | None:
        """Distinct categories: how many groups of parts the score can tell apart; None without any GRR."""
        return int(DISTINCT * self.parts / self.grr) if self.grr else None

    def tolerance_percent(self, threshold: float) -> float:
        """GRR in percent of the room between the mean of these (good) parts and the `threshold`, a one-sided limit.

        Infinite where the mean is above it.
        """
        room = threshold - self.mean
        return 100 * PER_TOLERANCE / 2 * self.grr / room if room > 0 else math.inf


def gauge(scores: NDArray[np.float64]) -> Gauge:
    """Return the gauge study of scores (parts, operators, trials), each part as often by each operator.

    Raises `UserError` where there is too little to tell anything by.
    """
    from scipy import stats  # here: the line does without

    parts, operators, trials = scores.shape
    if parts < 2 or trials < 2:
        found = f"{parts} parts, {trials} trials"
        raise UserError("a gauge study needs 2 parts and 2 trials at least, better 10 and 3", found)
    mean = scores.mean()
    by_part, by_operator, by_cell = scores.mean((1, 2)), scores.mean((0, 2)), scores.mean(2)
    sum_parts = operators * trials * ((by_part - mean) ** 2).sum()
    sum_operators = parts * trials * ((by_operator - mean) ** 2).sum()
    within = ((scores - by_cell[..., None]) ** 2).sum()
    between = trials * ((by_cell - by_part[:, None] - by_operator + mean) ** 2).sum()
    free_between, free_within = (parts - 1) * (operators - 1), parts * operators * (trials - 1)
    error, crossed, p_value, pooled = within / free_within, 0.0, None, True
    if free_between:
        crossed = between / free_between
        p_value = float(stats.f.sf(crossed / error, free_between, free_within)) if error else 0.0
        pooled = p_value > POOL_ABOVE
        if pooled:
            error = crossed = (within + between) / (free_within + free_between)
    against = crossed if free_between else error
    square_parts = sum_parts / (parts - 1)
    square_operators = sum_operators / (operators - 1) if operators > 1 else 0.0
    return Gauge(
        math.sqrt(error),
        _root((square_operators - against) / (parts * trials)) if operators > 1 else 0.0,
        0.0 if pooled else _root((crossed - error) / trials),
        _root((square_parts - against) / (operators * trials)),
        p_value,
        pooled,
        float(mean),
    )


def _root(variance: float) -> float:
    """Return a standard deviation; a variance that comes out below 0 is 0."""
    return math.sqrt(max(0.0, variance))


def kappa(first: list[str], second: list[str]) -> float:
    """Return Cohen's kappa of two lists of verdicts: agreement beyond chance; NaN where all are one verdict."""
    agree = float(np.mean([a == b for a, b in zip(first, second, strict=True)]))
    chance = sum(first.count(word) * second.count(word) for word in set(first)) / len(first) ** 2
    return math.nan if chance == 1 else (agree - chance) / (1 - chance)
