"""The statistics of a report: ratios of things that were measured in turn, and their noise."""

from collections.abc import Sequence

import numpy as np

BLOCKS = 5  # parts of a measurement that are compared with each other to see how far its median moves
Rounds = Sequence[Sequence[float]]  # milliseconds by round; a round may be empty


def round_medians(rounds_ms: Rounds) -> list[float]:
    """Return the median of each round, NaN for one without a run."""
    return [float(np.median(samples)) if len(samples) else float("nan") for samples in rounds_ms]


def round_ratios(first: Rounds, other: Rounds) -> list[tuple[float, ...]]:
    """Return first / other of each round, empty for one in which not both ran."""
    ratios = np.asarray(round_medians(first)) / np.asarray(round_medians(other))
    return [(float(ratio),) if np.isfinite(ratio) else () for ratio in ratios]


def speed_ratio(first: Rounds, other: Rounds) -> float | None:
    """Return the other's speed as a multiple of the first's: the median over rounds of first / other.

    A ratio taken within a round cancels what both met in that round; a ratio of two medians would not. None where
    no round has both.
    """
    ratios = [ratio for samples in round_ratios(first, other) for ratio in samples]
    return float(np.median(ratios)) if ratios else None


def noise(rounds_ms: Rounds) -> float | None:
    """Return how far a median moves from one part of the measurement to the next, as a share of it.

    The standard deviation of the medians of `BLOCKS` blocks of consecutive rounds; None for fewer than two rounds.
    """
    medians = [value for value in round_medians(rounds_ms) if value == value]
    if len(medians) < 2:
        return None
    blocks = [np.median(part) for part in np.array_split(medians, min(BLOCKS, len(medians)))]
    return float(np.std(blocks, ddof=1) / np.median(blocks))
