"""Thresholds of the image score: from good images for a chosen false-alarm rate, or by best F1 where labels exist."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from runtime.common.errors import UserError
from runtime.engines.sidecar import Threshold
from train.judging import thresholds as cuts

CONFIDENCE = 0.95  # of the interval of the false-alarm rate
CURE = "train.set_threshold --good DIR with other good images promises a rate"


def from_good_images(
    scores: Sequence[float],
    false_alarm_rate: float,
    map_maxima: Sequence[float] | None = None,
    *,
    apart: bool = True,
) -> Threshold:
    """Return the conformal quantile of held-out good scores (n,): a new good image exceeds it with at most that rate.

    It is the ⌈(n + 1)(1 - rate)⌉-th smallest score. With fewer than 1/rate - 1 images no score can promise the
    rate; then the largest one is taken and what it does promise, 1/(n + 1), is what `method` says. That is a mean
    over sets of n images; the interval says what this very set's threshold may turn out to do. Of the same images'
    `map_maxima` (n,) the same rank becomes the threshold of a map's positions.

    All that holds for images that had no say in the detector. Where they also chose its weights or froze its score
    (`apart` False), they score lower than new ones do, by an amount that nothing bounds: then `method` says so, and
    neither a rate nor an interval is given.
    """
    if not 0 < false_alarm_rate < 1:
        raise UserError("the false-alarm rate must lie between 0 and 1", str(false_alarm_rate))
    if not len(scores):
        raise UserError("a threshold needs the scores of good images", "none")
    if not np.isfinite(scores).all():
        raise UserError("the scores of good images must be finite", "NaN or infinity")
    count = len(scores)
    # Rounded before the ceiling: 100·(1 - 0.42) is 58.00000000000001 in floating point and would become 59.
    rank = min(math.ceil(round((count + 1) * (1 - false_alarm_rate), 9)), count)
    value, of_map = _ranked(scores, rank), None if map_maxima is None else _ranked(map_maxima, rank)
    promised = (count + 1 - rank) / (count + 1)
    low, high = false_alarm_interval(count, rank)
    needed = math.ceil(round(1 / false_alarm_rate, 9)) - 1
    note = f" ({false_alarm_rate:.2%} needs {needed})" if count < needed else ""
    if not apart:
        why = "which also chose the weights or the score's constants, so that nothing is promised"
        method = f"{_which(rank, count)} of {count} held-out good images{note}, {why}; {CURE}"
        return Threshold(value, method, map_value=of_map)
    method = f"false-alarm rate <= {promised:.2%} from {count} held-out good images{note}"
    method = f"{method}, {CONFIDENCE:.0%} interval {100 * low:.2g}% to {100 * high:.2g}%"
    return Threshold(value, method, promised, (low, high), of_map)


def _which(rank: int, count: int) -> str:
    return "largest score" if rank == count else f"score number {rank}, from the smallest,"


def _ranked(scores: Sequence[float], rank: int) -> float:
    return float(np.sort(np.asarray(scores, dtype=np.float64))[rank - 1])


def false_alarm_interval(count: int, rank: int) -> tuple[float, float]:
    """Return the central interval of the false-alarm rate of the `rank`-th smallest of `count` good scores.

    The share of a continuous distribution above that order statistic is Beta(count + 1 - rank, rank), whatever
    the distribution; where scores tie, fewer than that are above.
    """
    low, high = stats.beta.interval(CONFIDENCE, count + 1 - rank, rank)
    return float(low), float(high)


def best_f1(scores: ArrayLike, anomalous: ArrayLike) -> Threshold:
    """Return the threshold with the largest F1 over labelled images, halfway to the next lower score."""
    labels = np.asarray(anomalous, dtype=bool)
    f1, value = cuts.best_f1(scores, labels)
    return Threshold(value, f"best F1 {f1:.4f} on {labels.size} labelled images")
