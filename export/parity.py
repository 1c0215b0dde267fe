"""How far a typed graph's answers lie from the FP32 graph's, measured on frames by ONNX Runtime."""

from collections.abc import Iterable

import numpy as np
import onnx
from numpy.typing import NDArray

from export.onnx_files import cpu_session
from runtime.metadata import INPUT_NAME


def measure_parity(
    reference: onnx.ModelProto, typed: onnx.ModelProto, frames: Iterable[NDArray[np.uint8]], threshold: float
) -> dict[str, float]:
    """Judge batches (B, H, W, 3) with both and return the differences, in score units, as the sidecar holds them.

    `verdicts_changed` counts the frames whose score lies on the other side of `threshold`.
    """
    left, right = cpu_session(reference), cpu_session(typed)
    map_errors, scores = [], []
    for batch in frames:
        (map_a, score_a), (map_b, score_b) = (session.run(None, {INPUT_NAME: batch}) for session in (left, right))
        map_errors.append(float(np.abs(map_a - map_b).max()))
        scores += list(zip(score_a.tolist(), score_b.tolist(), strict=True))
    pairs = np.asarray(scores)
    errors = np.abs(pairs[:, 0] - pairs[:, 1])
    above = pairs > threshold
    return {
        "frames": float(len(pairs)),
        "anomaly_map_max": max(map_errors),
        "image_score_median": float(np.median(errors)),
        "image_score_max": float(errors.max()),
        "verdicts_changed": float((above[:, 0] != above[:, 1]).sum()),
    }
