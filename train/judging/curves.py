"""What every cut through the scores of all pixels calls anomalous: the curves that areas and the best F1 come from.

Between two scores of defect pixels a lower cut adds normal pixels alone: the curves run level there. So only their
corners matter. They are computed piece by piece from the sorted scores, each time that a figure is asked for: a set
takes the 4 bytes of a normal pixel and the 8 of a defect pixel, whatever their shares.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from train.judging.binned import BinnedCurves
from train.judging.curve_points import CurvePoints, PixelCurves
from train.judging.packed import Known, packed_pixels, region_areas, scores_of, weights_of
from train.judging.thresholds import best_cut, check_finite

PIECE = 1 << 13  # defect pixels at a time
EXACT_PIXELS = 1 << 27  # of a set: those of more are counted in bins, for they no longer fit 4 GB with all else


class SortedCurves(PixelCurves):
    """The curves through every score.

    `scores` are the normal pixels', ascending; `packed` the defect pixels' (`train.judging.packed`).
    """

    def __init__(self, scores: NDArray[np.float32], packed: NDArray[np.uint64]) -> None:
        self._scores, self._packed = scores, packed
        self.normal, self.anomalous = len(scores), len(packed)

    @cached_property
    def _regions(self) -> float:
        """The number of regions as the sum of all weights, in the order in which `pieces` adds them."""
        total = 0.0
        for stop in range(self.anomalous, 0, -PIECE):
            total = float(_sums(total, self._packed[max(0, stop - PIECE) : stop])[-1])
        return total

    def pieces(self) -> Iterator[CurvePoints]:
        """Yield all corners, some at a time, by descending score."""
        lowest, carried = np.inf, 0.0
        above = (0, 0.0)  # the pixels above those that are yet to be cut, and the sum of their weights
        for stop in range(self.anomalous, 0, -PIECE):
            start = max(0, stop - PIECE)
            marked = scores_of(self._packed[start:stop])
            next_marked = scores_of(self._packed[start - 1 : start])[0] if start else np.float32(-np.inf)
            sums = _sums(carried, self._packed[start:stop])[::-1]  # entry i is from pixel `start + i` on
            hits, overlap = self.anomalous - np.arange(start, stop + 1), np.append(sums[:-1], above[1])
            hits[-1] = above[0]
            cuts = self._cuts(marked, next_marked, lowest)
            if len(cuts):
                lowest = cuts[0]
                if not start and self._scores[0] < lowest:
                    cuts = np.concatenate([self._scores[:1], cuts])
                yield self._points(cuts[::-1], marked, next_marked, hits, overlap)
            carried = float(sums[0])
            last = int(np.searchsorted(marked, next_marked, "right"))  # of a score that goes on in the next piece
            above = (int(hits[last]), float(overlap[last]))

    def _cuts(self, marked: NDArray[np.float32], next_marked: np.float32, lowest: float) -> NDArray[np.float32]:
        """Return the ascending cuts below `lowest` at which a curve may bend, of a piece's ascending scores.

        That is at every distinct score of a defect pixel, and at the normal score just above one. A score that the
        next piece has too is that one's.
        """
        own = marked[np.flatnonzero(np.concatenate([[marked[0] != next_marked], marked[1:] != marked[:-1]]))]
        above = np.searchsorted(self._scores, own, "right")
        cuts = np.union1d(own, self._scores[above[above < self.normal]])
        return cuts[cuts < lowest]

    def _points(
        self,
        cuts: NDArray[np.float32],
        marked: NDArray[np.float32],
        next_marked: np.float32,
        hits: NDArray[np.int64],
        overlap: NDArray[np.float64],
    ) -> CurvePoints:
        places, among = np.searchsorted(self._scores, cuts, "left"), np.searchsorted(marked, cuts, "left")
        lower = np.where(among > 0, marked[among - 1], next_marked)
        below = np.maximum(lower, np.where(places > 0, self._scores[places - 1], np.float32(-np.inf)))
        return CurvePoints(
            false_positive_rate=(self.normal - places) / self.normal,
            true_positive_rate=hits[among] / self.anomalous,
            region_overlap=overlap[among] / self._regions,  # all regions whole: exactly 1
            thresholds=cuts,
            below=below,
        )


def _sums(carried: float, packed: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Return `carried` and its sums with the weights of the last pixel of `packed`, the last two, and so on."""
    return np.cumsum(np.append(carried, weights_of(packed)[::-1]))


@dataclass(frozen=True)
class Rates:
    """What one cut calls anomalous: shares in [0, 1] of the normal pixels, of the anomalous ones, of each region."""

    false_positive_rate: float
    true_positive_rate: float
    region_overlap: float


def pixel_curves(
    maps: NDArray[np.float32], masks: Sequence[NDArray[np.bool_] | None], exact_pixels: int = EXACT_PIXELS
) -> PixelCurves | None:
    """Return the curves over the pixels of all maps (N, H, W) whose mask (H, W) is known.

    None where the masks mark no pixel, or every one. A region is an 8-connected part of one mask. Of more than
    `exact_pixels` pixels they are binned (`train.judging.binned`). Raises `UserError` for a score that is not finite.
    """
    known = [(scores, mask) for scores, mask in zip(maps, masks, strict=True) if mask is not None]
    anomalous = sum(int(mask.sum()) for _, mask in known)
    normal = sum(mask.size for _, mask in known) - anomalous
    if not anomalous or not normal:
        return None
    for scores, _ in known:
        check_finite(scores, "every score of an anomaly map")
    if normal + anomalous > exact_pixels:
        return BinnedCurves.of(known)
    return SortedCurves(normal_scores(known), packed_pixels(known))


def normal_scores(known: Known) -> NDArray[np.float32]:
    """Return the scores of the pixels that no mask marks, ascending, in one array that is sorted where it is."""
    counts = [mask.size - int(mask.sum()) for _, mask in known]
    scores = np.empty(sum(counts), dtype=known[0][0].dtype)
    for (values, mask), end in zip(known, np.cumsum(counts), strict=True):
        scores[end - (mask.size - int(mask.sum())) : end] = values[~mask]
    scores.sort()
    return scores


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
        weights = 1 / region_areas(mask)
        overlap, regions = overlap + float(weights[found].sum()), regions + round(float(weights.sum()))
    return Rates(alarms / (sum(mask.size for mask in masks) - marked), hits / marked, overlap / regions)


def best_pixel_f1(curves: PixelCurves) -> tuple[float, float]:
    """Return the largest F1 by pixel of any cut, and the highest such cut."""
    found = (
        best_cut(f1_by_pixel(curves, each.true_positive_rate, each.false_positive_rate), each.thresholds, each.below)
        for each in curves.pieces()
    )
    return max(found, key=itemgetter(0))  # the first of equal ones


def f1_by_pixel(curves: PixelCurves, recall: Any, false_positive_rate: Any) -> Any:
    """Return the F1 by pixel, in [0, 1], of cuts with these rates on the curves' set."""
    normal_per_anomalous = curves.normal / curves.anomalous
    return 2 * recall / (recall + normal_per_anomalous * false_positive_rate + 1)
