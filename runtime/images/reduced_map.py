"""A large map made small without losing a defect: each position is the highest of those that it stands for.

To interpolate would step over a defect of a few pixels, and to average would hide it.
"""

import numpy as np
from numpy.typing import NDArray

from runtime.images.pixels import held_bytes

SMALL_MAP = 512  # positions of the longer side of a map that is not large, whatever its shape
LARGE_BYTES = SMALL_MAP * SMALL_MAP * 4  # of a map: smaller ones are kept as they are


def is_large_map(anomaly_map: NDArray[np.float32]) -> bool:
    """Whether keeping many such maps would count."""
    return held_bytes(anomaly_map) > LARGE_BYTES


def reduced_map(anomaly_map: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """Return a map (H, W) with `side` positions a side at most, its aspect ratio kept; itself where it has no more."""
    longer = max(anomaly_map.shape)
    if longer <= side:
        return anomaly_map
    for axis, count in enumerate(anomaly_map.shape):
        fewer = max(1, round(count * side / longer))
        anomaly_map = np.maximum.reduceat(anomaly_map, np.arange(fewer) * count // fewer, axis=axis)
    return anomaly_map


def empty_map(like: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a map of zeros of the same size that takes one value."""
    return np.broadcast_to(np.zeros((), np.float32), like.shape)
