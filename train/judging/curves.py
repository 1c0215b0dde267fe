"""What every cut through the scores of all pixels calls anomalous: the curves that areas and the best F1 come from.

Between two scores of defect pixels a lower cut adds normal pixels alone: the curves run level there. So only their
corners are kept, and a set takes little more than the 4 bytes a pixel of the one sorted copy of its scores.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from train.judging.thresholds import Scores, best_cut, check_finite

EIGHT_CONNECTED = np.ones((3, 3), dtype=int)


@dataclass(frozen=True, eq=False)
class PixelCurves:
    """The corners of the curves from the strictest cut to "every pixel"; all of length M, by descending score.

    Entry i is for the pixels whose score is at least `thresholds[i]`: their share of the `normal` pixels, their
    share of the `anomalous` pixels, and the mean over all ground-truth regions of the share of each. Between two
    entries the curves are straight lines. `below` is the next lower score of any pixel, minus infinity where
    there is none.
    """

    false_positive_rate: NDArray[np.float64]
    true_positive_rate: NDArray[np.float64]
    region_overlap: NDArray[np.float64]
    thresholds: Scores
    below: Scores
    normal: int
    anomalous: int


@dataclass(frozen=True)
class Rates:
    """What one cut calls anomalous: shares in [0, 1] of the normal pixels, of the anomalous ones, of each region."""

    false_positive_rate: float
    true_positive_rate: float
    region_overlap: float


def pixel_curves(maps: NDArray[np.float32], masks: Sequence[NDArray[np.bool_] | None]) -> PixelCurves | None:
    """Return the curves over the pixels of all maps (N, H, W) whose mask (H, W) is known.

    None where the masks mark no pixel, or every one. A region is an 8-connected part of one mask. Raises
    `UserError` for a score that is not finite.
    """
    known = [(scores, mask) for scores, mask in zip(maps, masks, strict=True) if mask is not None]
    anomalous = sum(int(mask.sum()) for _, mask in known)
    normal = sum(mask.size for _, mask in known) - anomalous
    if not anomalous or not normal:
        return None
    for scores, _ in known:
        check_finite(scores, "every score of an anomaly map")
    marked, weights = marked_pixels(known)
    unmarked = normal_scores(known)
    corners = corners_of(unmarked, marked)
    del unmarked
    hits, overlap = (sums_from(corners.thresholds, marked, weight) for weight in (None, weights))
    return PixelCurves(
        false_positive_rate=corners.false_positives / normal,
        true_positive_rate=hits / anomalous,
        region_overlap=overlap / overlap[-1],  # all regions whole: exactly 1, whatever the sum's rounding
        thresholds=corners.thresholds,
        below=corners.below,
        normal=normal,
        anomalous=anomalous,
    )


Known = Sequence[tuple[NDArray[np.float32], NDArray[np.bool_]]]


def normal_scores(known: Known) -> NDArray[np.float32]:
    """Return the scores of the pixels that no mask marks, ascending, in one array that is sorted where it is."""
    counts = [mask.size - int(mask.sum()) for _, mask in known]
    scores = np.empty(sum(counts), dtype=known[0][0].dtype)
    for (values, mask), end in zip(known, np.cumsum(counts), strict=True):
        scores[end - (mask.size - int(mask.sum())) : end] = values[~mask]
    scores.sort()
    return scores


def marked_pixels(known: Known) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Return the ascending scores of the pixels that a mask marks, and 1 / (area of its region) of each."""
    marked = np.concatenate([scores[mask] for scores, mask in known])
    weights = np.concatenate([region_weights(mask) for _, mask in known])
    order = np.argsort(marked, kind="stable")
    return marked[order], weights[order]


def region_weights(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return 1 / (area of its region) for every marked pixel, in the order of rows and columns."""
    labels, _ = ndimage.label(mask, EIGHT_CONNECTED)
    of_pixel = labels[mask]
    weights: NDArray[np.float64] = 1 / np.bincount(of_pixel)[of_pixel]
    return weights


@dataclass(frozen=True, eq=False)
class Corners:
    """Cuts by descending `thresholds` (M,), how many normal pixels each calls, and the next lower score of any."""

    thresholds: Scores
    false_positives: NDArray[np.int64]
    below: Scores


def corners_of(normal: Scores, marked: Scores) -> Corners:
    """Return the cuts at which a curve over `normal` pixels may bend; both scores are ascending.

    That is at every distinct score of a defect pixel, at the normal score just above one, and at the lowest score.
    """
    own = marked[np.flatnonzero(np.concatenate([[True], marked[1:] != marked[:-1]]))]
    above = np.searchsorted(normal, own, "right")
    cuts = np.union1d(own, normal[above[above < len(normal)]])
    if normal[0] < cuts[0]:
        cuts = np.concatenate([normal[:1], cuts])
    low = np.full(len(cuts), -np.inf, dtype=cuts.dtype)
    for scores in (normal, marked):
        before = np.searchsorted(scores, cuts, "left") - 1
        np.maximum(low, np.where(before < 0, -np.inf, scores[before]), out=low, casting="same_kind")
    return Corners(cuts[::-1], (len(normal) - np.searchsorted(normal, cuts, "left"))[::-1], low[::-1])


def sums_from(cuts: Scores, marked: Scores, weights: NDArray[np.float64] | None) -> NDArray[Any]:
    """Return how many of the ascending `marked` scores (or how much weight) is at least each of the `cuts`."""
    below = np.searchsorted(marked, cuts, "left")
    if weights is None:
        return len(marked) - below
    from_above = np.concatenate([np.cumsum(weights[::-1])[::-1], [0]])
    return from_above[below]


def rates_above(maps: NDArray[np.float32], masks: Sequence[NDArray[np.bool_]], threshold: float) -> Rates:
    """Return what is called where exactly the pixels above `threshold` are; masks must mark some pixels, not all."""
    alarms = hits = marked = regions = 0
    overlap = 0.0
    for scores, mask in zip(maps, masks, strict=True):
        called = scores > threshold
        found = called[mask]
        alarms, hits, marked = (
            alarms + int(called.sum()) - int(found.sum()),
            hits + int(found.sum()),
            marked + found.size,
        )
        weights = region_weights(mask)
        overlap, regions = overlap + float(weights[found].sum()), regions + round(float(weights.sum()))
    return Rates(alarms / (sum(mask.size for mask in masks) - marked), hits / marked, overlap / regions)


def best_pixel_f1(curves: PixelCurves) -> tuple[float, float]:
    """Return the largest F1 by pixel of any cut, and the highest such cut."""
    f1 = f1_by_pixel(curves, curves.true_positive_rate, curves.false_positive_rate)
    return best_cut(f1, curves.thresholds, curves.below)


def f1_by_pixel(curves: PixelCurves, recall: Any, false_positive_rate: Any) -> Any:
    """Return the F1 by pixel, in [0, 1], of cuts with these rates on the curves' set."""
    normal_per_anomalous = curves.normal / curves.anomalous
    return 2 * recall / (recall + normal_per_anomalous * false_positive_rate + 1)


def area_up_to(x: NDArray[np.float64], y: NDArray[np.float64], limit: float) -> float:
    """Return the area from the origin along ascending `x`, which ends at 1, to `limit`, by straight lines."""
    inside = int(np.searchsorted(x, limit, side="right"))
    xs, ys = np.concatenate([[0], x[:inside]]), np.concatenate([[0], y[:inside]])
    area = np.sum(np.diff(xs) * (ys[1:] + ys[:-1])) / 2
    if inside < len(x):  # the line to the next point, as far as the limit
        at_limit = np.interp(limit, (xs[-1], x[inside]), (ys[-1], y[inside]))
        area += (limit - xs[-1]) * (ys[-1] + at_limit) / 2
    return float(area)
