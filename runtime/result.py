"""What an engine says of one frame, and when that can be trusted."""

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Verdict = Literal["good", "anomalous", "none"]
VERDICTS: tuple[Verdict, ...] = ("good", "anomalous", "none")
ROUNDING = 0.05  # of the scale's ends: what FP16 and INT8 leave
NOT_FINITE = "the engine's result is not finite"


def by_threshold(score: float, threshold: float) -> float:
    """Return a score in units of its threshold, to rank those of several; as it is for a threshold of 0."""
    return score / threshold if threshold > 0 else score


@dataclass(frozen=True, eq=False)
class Result:
    """What the engine says of one frame.

    `anomaly_map` is float32 (H, W) at the engine's input size, in [0, number of taps]; `image_score` one number
    in the same units; the verdict is "anomalous" where it is above `threshold`. A position of the map is outside
    what good images show where it is above `map_threshold`. `latency_ms` holds milliseconds by stage
    ("preprocess", the session's stages such as "execute", "total"); frames judged in one batch share theirs.

    The verdict is "none" where the result cannot be trusted; `reason` says why, for a person. Where the engine gave
    no finite numbers, `image_score` is NaN and the map all 0.
    """

    anomaly_map: NDArray[np.float32]
    image_score: float
    verdict: Verdict
    threshold: float
    map_threshold: float
    latency_ms: dict[str, float]
    reason: str = ""

    @property
    def score(self) -> float | None:
        """The image score as JSON can hold it: None where there is none."""
        return self.image_score if math.isfinite(self.image_score) else None

    def without_verdict(self, reason: str) -> "Result":
        """Return the same without a verdict; the first reason stays."""
        return replace(self, verdict="none", reason=self.reason or reason)

    def unjudged(self, reason: str) -> "Result":
        """Return the result of a frame that the engine did not see: no score, nothing on the map."""
        empty = np.zeros_like(self.anomaly_map)
        return replace(self, anomaly_map=empty, image_score=math.nan, verdict="none", reason=reason)


def result_of(
    anomaly_map: NDArray[np.float32],
    image_score: float,
    limits: tuple[float, float],
    latency_ms: dict[str, float],
    maximum: float = math.inf,
) -> Result:
    """Return the result of a map (H, W) and its score; `limits` are the thresholds of the score and of the map.

    A number that is not finite says nothing: NaN is above no threshold and would pass as good. Nor does one outside
    of the scale, 0 to `maximum`: the engine computes something else than it was built for.
    """
    found = (image_score, float(anomaly_map.min()), float(anomaly_map.max()))  # a map's NaN is its least and largest
    if not all(map(math.isfinite, found)):
        fault = NOT_FINITE
    elif min(found) < -ROUNDING or max(found) > maximum + ROUNDING:
        fault = f"the engine's result is outside of the scale, {min(found):.4g} to {max(found):.4g}"
    else:
        fault = ""
    if fault:
        return Result(np.zeros_like(anomaly_map), math.nan, "none", *limits, latency_ms, fault)
    return Result(anomaly_map, image_score, "anomalous" if image_score > limits[0] else "good", *limits, latency_ms)
