"""What an engine says of one frame."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Verdict = Literal["good", "anomalous"]


@dataclass(frozen=True, eq=False)
class Result:
    """What the engine says of one frame.

    `anomaly_map` is float32 (H, W) at the engine's input size, in [0, number of taps]; `image_score` one number
    in the same units; the verdict is "anomalous" where it is above `threshold`. A position of the map is outside
    what good images show where it is above `map_threshold`. `latency_ms` holds milliseconds by stage
    ("preprocess", the session's stages such as "execute", "total"); frames judged in one batch share theirs.
    """

    anomaly_map: NDArray[np.float32]
    image_score: float
    verdict: Verdict
    threshold: float
    map_threshold: float
    latency_ms: dict[str, float]
