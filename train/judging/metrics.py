"""How well scores separate: AUROC and best F1 by image and by pixel, and AUPRO (per-region overlap).

All pixel figures follow from one sort: `pixel_curves` says for every distinct score what a cut there would call
anomalous, and the areas and the best cut are read off those curves.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from export.images.labelled import auroc
from train.judging.judged_set import JudgedSet
from train.judging.thresholds import Scores, best_cut, best_f1, check_finite, distinct_scores, sums_from_above

FALSE_POSITIVE_LIMIT = 0.3  # of AUPRO, as in the paper and in MVTec AD's own evaluation
EIGHT_CONNECTED = np.ones((3, 3), dtype=int)


@dataclass(frozen=True)
class Evaluation:
    """Areas and F1 in [0, 1]; an F1's threshold is the score to cut at: what lies above it is called anomalous.

    The figures by pixel are None where an anomalous image has no mask that marks a pixel of it.
    """

    images: int
    anomalous: int
    image_auroc: float
    pixel_auroc: float | None
    aupro: float | None
    image_f1: float
    image_f1_threshold: float
    pixel_f1: float | None
    pixel_f1_threshold: float | None


@dataclass(frozen=True, eq=False)
class PixelCurves:
    """What each cut calls anomalous, from the strictest to "every pixel"; all of length M, one entry a distinct score.

    Entry i is for the pixels whose score is at least `thresholds[i]` (descending): their share of the `normal`
    pixels, their share of the `anomalous` pixels, and the mean over all ground-truth regions of the share of each.
    """

    false_positive_rate: NDArray[np.float64]
    true_positive_rate: NDArray[np.float64]
    region_overlap: NDArray[np.float64]
    thresholds: Scores
    normal: int
    anomalous: int


def pixel_curves(maps: NDArray[np.float32], masks: Sequence[NDArray[np.bool_] | None]) -> PixelCurves | None:
    """Return the curves over the pixels of all maps (N, H, W) whose mask (H, W) is known.

    None where the masks mark no pixel, or every one. A region is an 8-connected part of one mask. Raises
    `UserError` for a score that is not finite.
    """
    known = [index for index, mask in enumerate(masks) if mask is not None]
    truth = [mask for mask in masks if mask is not None]
    anomalous = sum(int(mask.sum()) for mask in truth)
    normal = sum(mask.size for mask in truth) - anomalous
    if not anomalous or not normal:
        return None
    check_finite(maps, "every score of an anomaly map")
    distinct, called = distinct_scores(maps[known])
    marked = np.concatenate([maps[index][mask] for index, mask in zip(known, truth, strict=True)])
    hits = sums_from_above(distinct, marked)
    overlap = sums_from_above(distinct, marked, _region_weights(truth))
    return PixelCurves(
        false_positive_rate=(called - hits) / normal,
        true_positive_rate=hits / anomalous,
        region_overlap=overlap / overlap[-1],  # all regions whole: exactly 1, whatever the sum's rounding
        thresholds=distinct[::-1],
        normal=normal,
        anomalous=anomalous,
    )


def _region_weights(masks: Sequence[NDArray[np.bool_]]) -> NDArray[np.float64]:
    """Return 1 / (area of its region) for every marked pixel, in the order of masks, rows and columns."""
    weights = []
    for mask in masks:
        labels, _ = ndimage.label(mask, EIGHT_CONNECTED)
        of_pixel = labels[mask]
        weights.append(1 / np.bincount(of_pixel)[of_pixel])
    return np.concatenate(weights)


def pixel_auroc(curves: PixelCurves) -> float:
    """Return the area under the ROC curve by pixel, in [0, 1]."""
    return _area(curves.false_positive_rate, curves.true_positive_rate, 1)


def aupro(curves: PixelCurves, limit: float = FALSE_POSITIVE_LIMIT) -> float:
    """Return the area under region overlap over false-positive rates up to `limit` (in (0, 1]), divided by it."""
    return _area(curves.false_positive_rate, curves.region_overlap, limit) / limit


def best_pixel_f1(curves: PixelCurves) -> tuple[float, float]:
    """Return the largest F1 by pixel of any cut, and the highest such cut."""
    normal_per_anomalous = curves.normal / curves.anomalous
    recall = curves.true_positive_rate
    f1 = 2 * recall / (recall + normal_per_anomalous * curves.false_positive_rate + 1)
    return best_cut(f1, curves.thresholds)


def _area(x: NDArray[np.float64], y: NDArray[np.float64], limit: float) -> float:
    """Return the area from the origin along ascending `x`, which ends at 1, to `limit`, by straight lines."""
    inside = int(np.searchsorted(x, limit, side="right"))
    xs, ys = np.concatenate([[0], x[:inside]]), np.concatenate([[0], y[:inside]])
    area = np.sum(np.diff(xs) * (ys[1:] + ys[:-1])) / 2
    if inside < len(x):  # the line to the next point, as far as the limit
        at_limit = np.interp(limit, (xs[-1], x[inside]), (ys[-1], y[inside]))
        area += (limit - xs[-1]) * (ys[-1] + at_limit) / 2
    return float(area)


def known_curves(judged: JudgedSet) -> PixelCurves | None:
    """Return the curves of a judged set; None where an anomalous image has no mask.

    Figures over those that have one would be of another set than the images' figures beside them, and a mask that is
    not found for its name or its folder would move them without a word.
    """
    missing = any(mask is None for mask in judged.masks)
    return None if missing else pixel_curves(judged.maps, judged.masks)


def evaluate_judged(judged: JudgedSet) -> Evaluation:
    """Return every figure of a judged set; those by pixel only where every anomalous image has its mask.

    Raises `UserError` if only one class is present, or for a score that is not finite.
    """
    anomalous = judged.anomalous
    check_finite(judged.scores, "every image score")
    image_auroc = auroc(judged.scores, anomalous)
    image_f1, image_threshold = best_f1(judged.scores, anomalous)
    curves = known_curves(judged)
    pixel_f1, pixel_threshold = (None, None) if curves is None else best_pixel_f1(curves)
    return Evaluation(
        images=len(judged.images),
        anomalous=int(anomalous.sum()),
        image_auroc=image_auroc,
        pixel_auroc=None if curves is None else pixel_auroc(curves),
        aupro=None if curves is None else aupro(curves),
        image_f1=image_f1,
        image_f1_threshold=image_threshold,
        pixel_f1=pixel_f1,
        pixel_f1_threshold=pixel_threshold,
    )
