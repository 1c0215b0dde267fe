"""Curves by pixel from counts in bins, for sets of so many pixels that their scores do not fit the memory.

A bin is a power of two wide, at most 2^-19 of the range of the scores, and its ends are exact in float32. Every cut is
at the end of a bin; between two cuts the curves run straight, as if the pixels of a bin of either kind had equal
scores. Rates at a cut are exact, and an area is off by less than half of what the pairs in one bin share.
"""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from train.judging.curve_points import CurvePoints, PixelCurves
from train.judging.packed import Known, region_areas

BINS = 1 << 20
PIECE = 1 << 20  # pixels at a time


class BinnedCurves(PixelCurves):
    """Counts of `normals` and `marked` pixels, and the `overlaps` of regions, in bins from `low` on, each `step` wide.

    All three are (M,), and a pixel's overlap is one by the area of its region.
    """

    def __init__(
        self,
        low: float,
        step: float,
        normals: NDArray[np.int64],
        marked: NDArray[np.int64],
        overlaps: NDArray[np.float64],
    ) -> None:
        self._low, self.step = low, step
        self._normals, self._marked, self._overlaps = normals, marked, overlaps
        self.normal, self.anomalous = int(normals.sum()), int(marked.sum())

    @classmethod
    def of(cls, known: Known, bins: int = BINS) -> "BinnedCurves":
        """Return the curves of maps and masks, of which some pixels are marked and some are not, all of them finite."""
        lowest = min(float(scores.min()) for scores, _ in known)
        highest = max(float(scores.max()) for scores, _ in known)
        step = _step(lowest, highest, bins)
        low = math.floor(lowest / step) * step
        count = math.floor((highest - low) / step) + 1
        normals, marked, overlaps = np.zeros(count, np.int64), np.zeros(count, np.int64), np.zeros(count)
        for scores, mask in known:
            for values in _pieces(scores, ~mask):
                normals += np.bincount(_bins(values, low, step), minlength=count)
            if mask.any():
                found = _bins(scores[mask], low, step)
                marked += np.bincount(found, minlength=count)
                overlaps += np.bincount(found, 1 / region_areas(mask), count)
        return cls(low, step, normals, marked, overlaps)

    def pieces(self) -> Iterator[CurvePoints]:
        """Yield the ends of all bins that hold a pixel."""
        held = np.flatnonzero(self._normals + self._marked)[::-1]
        overlap = np.cumsum(self._overlaps[held])
        thresholds = (self._low + self.step * held).astype(np.float32)
        below = np.nextafter(thresholds, np.float32(-np.inf))
        below[-1] = -np.inf
        yield CurvePoints(
            np.cumsum(self._normals[held]) / self.normal,
            np.cumsum(self._marked[held]) / self.anomalous,
            overlap / overlap[-1],
            thresholds,
            below,
        )


def _step(lowest: float, highest: float, bins: int) -> float:
    """Return the smallest power of two of which `bins` hold the range, and which float32 tells apart at its ends."""
    largest = max(abs(lowest), abs(highest), np.finfo(np.float32).tiny)
    wide, told_apart = math.log2(max((highest - lowest) / (bins - 2), 1e-30)), math.frexp(largest)[1] - 24
    return 2.0 ** max(math.ceil(wide), told_apart)


def _bins(scores: NDArray[np.float32], low: float, step: float) -> NDArray[np.int64]:
    return np.floor((scores.astype(np.float64) - low) / step).astype(np.int64)


def _pieces(scores: NDArray[np.float32], chosen: NDArray[np.bool_]) -> Iterator[NDArray[np.float32]]:
    flat, wanted = scores.reshape(-1), chosen.reshape(-1)
    for start in range(0, len(flat), PIECE):
        yield flat[start : start + PIECE][wanted[start : start + PIECE]]
