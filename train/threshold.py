"""Thresholds of the image score: from good images for a chosen false-alarm rate, or by best F1 where labels exist."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from sklearn.metrics import precision_recall_curve

from runtime.errors import UserError
from runtime.metadata import Threshold


def from_good_images(scores: Sequence[float], false_alarm_rate: float) -> Threshold:
    """Return the conformal quantile of held-out good scores (n,): a new good image exceeds it with at most that rate.

    It is the ⌈(n + 1)(1 - rate)⌉-th smallest score. With fewer than 1/rate - 1 images no score can promise the
    rate; then the largest one is taken and what it does promise, 1/(n + 1), is what `method` says.
    """
    if not 0 < false_alarm_rate < 1:
        raise UserError("the false-alarm rate must lie between 0 and 1", str(false_alarm_rate))
    if not len(scores):
        raise UserError("a threshold needs the scores of good images", "none")
    count = len(scores)
    # Rounded before the ceiling: 100·(1 - 0.42) is 58.00000000000001 in floating point and would become 59.
    rank = min(math.ceil(round((count + 1) * (1 - false_alarm_rate), 9)), count)
    value = float(np.sort(np.asarray(scores, dtype=np.float64))[rank - 1])
    promised = (count + 1 - rank) / (count + 1)
    needed = math.ceil(round(1 / false_alarm_rate, 9)) - 1
    note = f" ({false_alarm_rate:.2%} needs {needed})" if count < needed else ""
    return Threshold(value, f"false-alarm rate <= {promised:.2%} from {count} held-out good images{note}")


def best_f1(scores: ArrayLike, anomalous: ArrayLike) -> Threshold:
    """Return the threshold with the largest F1 over labelled images, halfway to the next lower score."""
    scores, anomalous = np.asarray(scores, dtype=np.float64), np.asarray(anomalous, dtype=bool)
    if anomalous.all() or not anomalous.any():
        raise UserError("best F1 needs good and anomalous images", "one class only")
    precision, recall, thresholds = precision_recall_curve(anomalous, scores)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    best = int(np.argmax(f1[:-1]))
    lowest_anomalous = thresholds[best]  # scores >= it are called anomalous
    below = scores[scores < lowest_anomalous]
    halfway = (lowest_anomalous + below.max()) / 2 if below.size else lowest_anomalous
    value = min(halfway, np.nextafter(lowest_anomalous, -np.inf))  # only a score above a threshold is anomalous
    return Threshold(float(value), f"best F1 {f1[best]:.4f} on {scores.size} labelled images")
