"""Judgements without an engine: what sinks are given."""

import numpy as np

from runtime.result import Result
from runtime.sinks.judgement import Judgement
from runtime.sources.frame import Frame

TIME_S = 1_700_000_000.25  # 2023-11-14 22:13:20.250 UTC
FRAME_S = 0.04
AGE_S = 0.005  # of a frame when it is judged


def judgement(
    index: int = 0, score: float = 0.5, source: str = "camera:0", size: tuple[int, int] = (60, 80), seed: int = 0
) -> Judgement:
    """Return frame `index` of 25 a second, anomalous above a score of 1, with its peak at (2, 3) of a 6 x 8 map."""
    image = np.random.default_rng(seed + index).integers(0, 256, (*size, 3)).astype(np.uint8)
    anomaly_map = np.zeros((6, 8), np.float32)
    anomaly_map[2, 3] = score
    result = Result(anomaly_map, score, "anomalous" if score > 1 else "good", 1.0, 1.0, {"execute": 1.5})
    frame = Frame(image, f"f{index:06d}", index, TIME_S + FRAME_S * index, monotonic_s=FRAME_S * index - AGE_S)
    return Judgement(source, frame, result, judged_s=FRAME_S * index)
