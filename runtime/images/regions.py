"""Where a map exceeds the threshold, in the pixels of the frame."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from runtime.images.opencv import opencv


@dataclass(frozen=True)
class Region:
    """One connected region above the threshold: its box in frame pixels and the largest score inside."""

    x: int
    y: int
    width: int
    height: int
    peak: float

    def fields(self) -> dict[str, float]:
        """Return it by its names; dataclasses' own way copies deeply, which counts with many boxes."""
        return dict(vars(self))


def regions_above(anomaly_map: NDArray[np.float32], threshold: float, frame_size: tuple[int, int]) -> list[Region]:
    """Return the 8-connected regions of `anomaly_map` (H, W) above `threshold`, the highest peak first.

    `frame_size` is (height, width) in pixels. Regions are found at the map's own resolution and their boxes scaled
    outwards, so that none is lost in a smaller frame. There is one exactly where a position of the map is above
    `threshold`; the image score has its own threshold, so a good frame can have regions and an anomalous one none.
    """
    if not anomaly_map.max() > threshold:  # most frames: a twentieth of the time that finding nothing takes
        return []
    mask = np.asarray(anomaly_map > threshold).view(np.uint8)
    x0, y0, across, down = opencv().boundingRect(mask)  # what lies outside need not be labelled
    near = (slice(y0, y0 + down), slice(x0, x0 + across))
    count, labels, boxes, _ = opencv().connectedComponentsWithStats(mask[near], connectivity=8)
    scores = anomaly_map[near]
    found = []
    for label in range(1, count):  # 0 is the background
        left, top, width, height = (int(value) for value in boxes[label][:4])
        inside = (slice(top, top + height), slice(left, left + width))
        peak = float(scores[inside][labels[inside] == label].max())
        y, bottom = _scale_outwards(y0 + top, y0 + top + height, anomaly_map.shape[0], frame_size[0])
        x, right = _scale_outwards(x0 + left, x0 + left + width, anomaly_map.shape[1], frame_size[1])
        found.append(Region(x, y, right - x, bottom - y, peak))
    return sorted(found, key=lambda region: (-region.peak, region.y, region.x))


def _scale_outwards(start: int, end: int, cells: int, pixels: int) -> tuple[int, int]:
    """Scale [start, end) of `cells` to `pixels`, rounding away from the middle."""
    return start * pixels // cells, -(-end * pixels // cells)
