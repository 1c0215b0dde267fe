"""Where a map exceeds the threshold, in the pixels of the frame."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from runtime.opencv import opencv


@dataclass(frozen=True)
class Region:
    """One connected region above the threshold: its box in frame pixels and the largest score inside."""

    x: int
    y: int
    width: int
    height: int
    peak: float


def regions_above(anomaly_map: NDArray[np.float32], threshold: float, frame_size: tuple[int, int]) -> list[Region]:
    """Return the 8-connected regions of `anomaly_map` (H, W) above `threshold`, the highest peak first.

    `frame_size` is (height, width) in pixels. Regions are found at the map's own resolution and their
    boxes scaled outwards, so there is a region exactly where the image score is above the threshold.
    """
    mask = (anomaly_map > threshold).astype(np.uint8)
    count, labels, boxes, _ = opencv().connectedComponentsWithStats(mask, connectivity=8)
    found = []
    for label in range(1, count):  # 0 is the background
        left, top, width, height = (int(value) for value in boxes[label][:4])
        inside = (slice(top, top + height), slice(left, left + width))
        peak = float(anomaly_map[inside][labels[inside] == label].max())
        y, bottom = _scale_outwards(top, top + height, anomaly_map.shape[0], frame_size[0])
        x, right = _scale_outwards(left, left + width, anomaly_map.shape[1], frame_size[1])
        found.append(Region(x, y, right - x, bottom - y, peak))
    return sorted(found, key=lambda region: -region.peak)


def _scale_outwards(start: int, end: int, cells: int, pixels: int) -> tuple[int, int]:
    """Scale [start, end) of `cells` to `pixels`, rounding away from the middle."""
    return start * pixels // cells, -(-end * pixels // cells)
