"""What several measurements share: which frames count, the session's share of one, and how long each takes."""

import time
from collections.abc import Callable, Sequence

import numpy as np

from runtime.detector import Detector
from runtime.overheads.generated import Generated, from_memory
from runtime.sinks.judgement import Judgement

WARM_UP = 20  # frames that do not count
SESSION = ("copy_in", "execute", "copy_out")  # the session's own stages


def time_frames(
    detector: Detector, frames: int, offer: Callable[[Judgement], None], fps: float = 0.0
) -> tuple[float, float]:
    """Return the median milliseconds a frame, and the median microseconds of `offer`.

    Frames come `fps` a second, as a camera's; 0: one as soon as the other is judged.
    """
    stamps_s = []
    first_s = time.perf_counter()
    for frame in Generated("memory", from_memory(frames, [])):
        if fps:
            time.sleep(max(0.0, first_s + frame.index / fps - time.perf_counter()))
        started_s, result, judged_s = time.perf_counter(), detector(frame.image), time.perf_counter()
        offer(Judgement("memory", frame, result))
        stamps_s.append((started_s, judged_s, time.perf_counter()))
    started, judged, offered = np.array(stamps_s).T
    return 1e3 * float(np.median(offered - started)), 1e6 * float(np.median(offered - judged))


def ratios(ms: Sequence[float], plain: Sequence[float], digits: int = 3) -> str:
    """Say how much longer rounds took than plain ones."""
    middle, best = np.median(ms) / np.median(plain), min(ms) / min(plain)
    return f"ratio {middle:.{digits}f}, of the best rounds {best:.{digits}f}"
