"""AU-sPRO: AUPRO where a defect counts as found once its saturation area is (Bergmann et al., 2022: MVTec LOCO)."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

import numpy as np
from numpy.typing import NDArray

from export.images.masks import MaskParts
from export.images.saturation import Defect, read_defects
from train.judging.curve_points import area_between
from train.judging.curves import normal_scores
from train.judging.judged_set import JudgedSet
from train.judging.thresholds import Scores

Judged = tuple[NDArray[np.float32], NDArray[np.bool_], Sequence[Defect]]  # an image's map, its mask, its defects


def au_spro(judged: JudgedSet, limit: float) -> float | None:
    """Return the AU-sPRO up to a false-positive rate of `limit`, in [0, 1]: the mean over the types of defects.

    Each type is judged with the good images, as the data set's own evaluation does. None unless every anomalous
    image has a mask and the saturation of its defects. Raises `UserError` for masks that do not fit it.
    """
    size = (judged.maps.shape[1], judged.maps.shape[2])
    by_type: dict[str, list[Judged]] = {}
    good: list[Judged] = []
    for image, scores, mask in zip(judged.images, judged.maps, judged.masks, strict=True):
        if mask is None:
            return None
        if not image.anomalous:
            good.append((scores, mask, ()))
            continue
        if not isinstance(image.mask, MaskParts) or not image.mask.saturations:
            return None
        by_type.setdefault(image.defect, []).append((scores, mask, read_defects(image.mask, size)))
    return mean(_area([*good, *images], limit) for images in by_type.values()) if by_type else None


def _area(images: Sequence[Judged], limit: float) -> float:
    defects = [(scores[defect.mask], defect.saturation) for scores, _, found in images for defect in found]
    marked = np.concatenate([scores for scores, _ in defects])
    weights = np.concatenate([saturating_weights(scores, saturation) for scores, saturation in defects])
    order = np.argsort(marked, kind="stable")
    corners = corners_of(normal_scores([(scores, mask) for scores, mask, _ in images]), marked[order])
    overlap = sums_from(corners.thresholds, marked[order], weights[order]) / len(defects)
    rates = corners.false_positives / corners.false_positives[-1]
    return area_between(np.append(0, rates), np.append(0, overlap), limit) / limit


def saturating_weights(scores: NDArray[np.float32], saturation: float) -> NDArray[np.float64]:
    """Return what each pixel of a defect adds to the share that is found, as cuts fall: nothing once that is 1.

    The highest `saturation` pixels add 1 / `saturation` each. Pixels that score alike are found together, so which of
    them is the last to count makes no difference.
    """
    rank = np.empty(len(scores))
    rank[np.argsort(-scores, kind="stable")] = np.arange(len(scores))
    return np.clip(saturation - rank, 0, 1) / saturation


@dataclass(frozen=True, eq=False)
class Corners:
    """Cuts by descending `thresholds` (M,), and how many normal pixels each calls."""

    thresholds: Scores
    false_positives: NDArray[np.int64]


def corners_of(normal: Scores, marked: Scores) -> Corners:
    """Return the cuts at which a curve over `normal` pixels may bend; both scores are ascending.

    That is at every distinct score of a defect pixel, at the normal score just above one, and at the lowest score.
    """
    own = marked[np.flatnonzero(np.concatenate([[True], marked[1:] != marked[:-1]]))]
    above = np.searchsorted(normal, own, "right")
    cuts = np.union1d(own, normal[above[above < len(normal)]])
    if normal[0] < cuts[0]:
        cuts = np.concatenate([normal[:1], cuts])
    return Corners(cuts[::-1], (len(normal) - np.searchsorted(normal, cuts, "left"))[::-1])


def sums_from(cuts: Scores, marked: Scores, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how much weight of the ascending `marked` scores is at least each of the `cuts`."""
    below = np.searchsorted(marked, cuts, "left")
    from_above = np.concatenate([np.cumsum(weights[::-1])[::-1], [0]])
    sums: NDArray[np.float64] = from_above[below]
    return sums
