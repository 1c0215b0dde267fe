"""What several detectors say of their regions of one frame, and what that comes to for the frame as a whole.

Scores of different detectors are on different scales. So each is held against its own threshold, and the frame's
score is the highest of score / threshold, which is held against 1: the part that is furthest above its threshold, or
nearest to it, decides.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from runtime.images.regions import Region, regions_above
from runtime.images.view import View
from runtime.result import Result, Verdict

JOINT_THRESHOLD = 1.0
NO_PICTURE = (1, 1)  # the size of what a view shows of a frame that does not fit


@dataclass(frozen=True, eq=False)
class Part:
    """The result of one detector on what its `view` shows of a frame, an image of (height, width) `size`.

    `maximum` is the detector's largest score. `found` are its boxes where they are known without the map.
    """

    name: str
    result: Result
    view: View
    size: tuple[int, int]
    maximum: float
    found: tuple[Region, ...] | None = None

    @property
    def ratio(self) -> float | None:
        """Its score by its threshold; None where there is no score."""
        score = self.result.score
        return None if score is None else score / self.result.threshold

    @property
    def boxes(self) -> list[Region]:
        """Where its map is above its threshold, in pixels of the camera's frame; a peak is by that threshold."""
        if self.found is not None:
            return list(self.found)
        found = regions_above(self.result.anomaly_map, self.result.map_threshold, self.size)
        return [
            Region(
                *self.view.to_camera((box.x, box.y, box.width, box.height), self.size),
                box.peak / self.result.map_threshold,
            )
            for box in found
        ]

    def with_map(self, anomaly_map: NDArray[np.float32]) -> "Part":
        """Return the same with another map and the boxes that it has."""
        return replace(self, result=replace(self.result, anomaly_map=anomaly_map), found=tuple(self.boxes))

    def without_verdict(self, reason: str) -> "Part":
        """Return the same without a verdict; the first reason stays."""
        return replace(self, result=self.result.without_verdict(reason))


def joint(parts: Sequence[Part]) -> Result:
    """Return the result of the frame: its map is that of the part which decides, by its threshold.

    Anomalous where a part is; else "none" where a part has no verdict; good only where all are. Milliseconds are
    summed up, for the parts are judged one after the other.
    """
    ratios = [math.nan if part.ratio is None else part.ratio for part in parts]
    score = max((ratio for ratio in ratios if math.isfinite(ratio)), default=math.nan)
    decides = parts[ratios.index(score) if score in ratios else 0]
    verdict = _verdict([part.result.verdict for part in parts])
    if verdict == "anomalous":
        score = max(score, math.nextafter(JOINT_THRESHOLD, 2))  # a quotient may be rounded to 1
    reasons = [f"{part.name}: {part.result.reason}" for part in parts if part.result.verdict == "none"]
    stages = dict.fromkeys(stage for part in parts for stage in part.result.latency_ms)
    latency_ms = {stage: sum(part.result.latency_ms.get(stage, 0.0) for part in parts) for stage in stages}
    anomaly_map = (decides.result.anomaly_map / np.float32(decides.result.map_threshold)).astype(np.float32)
    limits = (JOINT_THRESHOLD, JOINT_THRESHOLD)
    return Result(anomaly_map, score, verdict, *limits, latency_ms, "; ".join(reasons) if verdict == "none" else "")


def _verdict(verdicts: Sequence[Verdict]) -> Verdict:
    if "anomalous" in verdicts:
        return "anomalous"
    return "none" if "none" in verdicts else "good"


def all_boxes(parts: Sequence[Part]) -> tuple[Region, ...]:
    """Return the boxes of all parts, the highest peak first."""
    found = [box for part in parts for box in part.boxes]
    return tuple(sorted(found, key=lambda box: (-box.peak, box.y, box.x)))
