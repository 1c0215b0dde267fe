"""The scores of defect pixels and the areas of their regions in 8 bytes a pixel, sorted where they are.

The upper half of a number is the score, its bits turned so that numbers sort as scores do; the lower half is the area.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

EIGHT_CONNECTED = np.ones((3, 3), dtype=int)
SIGN, ALL = np.uint32(1 << 31), np.uint32((1 << 32) - 1)
HALF = np.uint64(32)

Known = Sequence[tuple[NDArray[np.float32], NDArray[np.bool_]]]  # of each image its map and its mask


def region_areas(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the area of its region for every marked pixel, in the order of rows and columns."""
    labels, _ = ndimage.label(mask, EIGHT_CONNECTED)
    of_pixel = labels[mask]
    areas: NDArray[np.int64] = np.bincount(of_pixel)[of_pixel]
    return areas


def packed_pixels(known: Known) -> NDArray[np.uint64]:
    """Return the ascending scores, with the areas, of the pixels that a mask marks."""
    packed, end = np.empty(sum(int(mask.sum()) for _, mask in known), np.uint64), 0
    for scores, mask in known:
        values = scores[mask]
        packed[end : end + len(values)] = _pack(values, region_areas(mask))
        end += len(values)
    packed.sort()
    return packed


def _pack(scores: NDArray[np.float32], areas: NDArray[np.int64]) -> NDArray[np.uint64]:
    bits = (scores.astype(np.float32) + np.float32(0)).view(np.uint32)  # both zeros are one
    ordered = bits ^ np.where(bits & SIGN, ALL, SIGN)
    packed: NDArray[np.uint64] = (ordered.astype(np.uint64) << HALF) | areas.astype(np.uint64)
    return packed


def scores_of(packed: NDArray[np.uint64]) -> NDArray[np.float32]:
    """Return the scores in `packed`."""
    ordered = (packed >> HALF).astype(np.uint32)
    scores: NDArray[np.float32] = (ordered ^ np.where(ordered & SIGN, SIGN, ALL)).view(np.float32)
    return scores


def weights_of(packed: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Return 1 / (area of its region) of each pixel in `packed`."""
    weights: NDArray[np.float64] = 1 / (packed & np.uint64(ALL)).astype(np.float64)
    return weights
