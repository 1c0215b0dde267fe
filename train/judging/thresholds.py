"""Cuts through scores: what lies above one is called anomalous, so scores that are equal are always called together."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from export.images.labelled import check_classes
from runtime.common.errors import UserError

Scores = NDArray[np.floating[Any]]


def check_finite(scores: Scores, what: str) -> None:
    """Raise `UserError` if any of `scores` is NaN or infinite."""
    if not np.isfinite(scores).all():
        raise UserError(f"{what} must be finite", "NaN or infinity", "train again, or build the engine with --fp32")


def best_cut(f1: NDArray[np.float64], thresholds: Scores, lower: Scores) -> tuple[float, float]:
    """Return the largest of `f1`, by descending `thresholds`, and a cut halfway to the next `lower` score of any kind.

    Of several that are equal it is the highest cut. It has the scores' own precision, so that comparing it with
    them in that precision calls the same ones. A `lower` of minus infinity says that there is none.
    """
    best = int(np.argmax(f1))
    below = np.nextafter(thresholds[best], -np.inf, dtype=thresholds.dtype)
    halfway = (thresholds[best] + lower[best]) / 2 if np.isfinite(lower[best]) else below
    return float(f1[best]), float(min(halfway, below))  # between neighbouring floats halfway rounds to one of them


def best_f1(scores: ArrayLike, anomalous: ArrayLike) -> tuple[float, float]:
    """Return the largest F1 of any cut through `scores` (n,), and that cut.

    Raises `UserError` if only one class is present.
    """
    scores = np.asarray(scores, dtype=np.result_type(np.asarray(scores), np.float32))
    labels = np.asarray(anomalous, dtype=bool)
    check_classes(labels, "best F1")
    distinct = np.unique(scores)[::-1]
    called, hits = (
        len(values) - np.searchsorted(np.sort(values), distinct, "left") for values in (scores, scores[labels])
    )
    lower = np.append(distinct[1:], -np.inf).astype(distinct.dtype)
    return best_cut(2 * hits / (called + labels.sum()), distinct, lower)
