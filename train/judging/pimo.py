"""AUPIMO: how much of each image's defect is found at next to no false pixels on good images (Bertoldo et al., 2024).

A cut's false-positive rate is its mean over the images whose mask marks nothing. Each other image has a curve of its
own: the share of its marked pixels that is found, over that rate. Its AUPIMO is the mean height of the curve between
the two `BOUNDS`, on a logarithmic axis. Every score is a cut and a bound may lie between two of them, where the curve
is a straight line. (anomalib 2.7 tries 300,000 evenly spaced cuts and moves a bound to the nearest rate that one of
them has, but divides by the whole range.)
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

BOUNDS = (1e-5, 1e-4)  # of the false-positive rate, the paper's


def aupimo(
    maps: NDArray[np.float32], masks: Sequence[NDArray[np.bool_]], bounds: tuple[float, float] = BOUNDS
) -> NDArray[np.float64] | None:
    """Return the AUPIMO in [0, 1] of each image whose mask (H, W) marks a pixel, in their order.

    None where no mask does, or every one. All maps (N, H, W) are of one size, so the mean over images of a rate is
    that of all their pixels.
    """
    marked = [bool(mask.any()) for mask in masks]
    if all(marked) or not any(marked):
        return None
    rates, cuts = _normal_tail([scores for scores, found in zip(maps, marked, strict=True) if not found], bounds[1])
    own = [np.sort(scores[mask]) for scores, mask, found in zip(maps, masks, marked, strict=True) if found]
    return np.array([_area(rates, cuts, scores, bounds) for scores in own])


def _normal_tail(
    maps: Sequence[NDArray[np.float32]], highest_rate: float
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Return the highest cuts, descending, and their false-positive rates: as many as reach `highest_rate`."""
    total = sum(scores.size for scores in maps)
    count = min(int(highest_rate * total) + 1, total)
    tail = np.empty(0, dtype=maps[0].dtype)
    for scores in maps:  # one image at a time: the tail is short
        tail = np.concatenate([tail, scores.ravel()])
        if len(tail) > count:
            tail = np.partition(tail, len(tail) - count)[-count:]
    cuts = np.unique(tail)
    called = len(tail) - np.searchsorted(np.sort(tail), cuts, "left")
    called[0] = sum(int((scores >= cuts[0]).sum()) for scores in maps)  # of those that equal the lowest some fell off
    return called[::-1] / total, cuts[::-1]


def _area(
    rates: NDArray[np.float64], cuts: NDArray[np.float32], own: NDArray[np.float32], bounds: tuple[float, float]
) -> float:
    """Return the mean height of one image's curve; `own` are the scores of its marked pixels, ascending.

    Between two cuts the share that is found first rises at the same rate, then runs straight to the next point.
    """
    above, from_cut = ((len(own) - np.searchsorted(own, cuts, side)) / len(own) for side in ("right", "left"))
    start = np.concatenate([[0], rates[:-1]])
    ends = [np.clip(bound, start, rates) for bound in bounds]
    low, high = (above + (from_cut - above) * (end - start) / (rates - start) for end in ends)
    inside = ends[1] > ends[0]
    widths = np.log(ends[1][inside] / ends[0][inside])
    return float(np.sum(widths * (low + high)[inside]) / 2 / np.log(bounds[1] / bounds[0]))
