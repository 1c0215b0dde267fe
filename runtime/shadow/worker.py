"""The process of a candidate: `python -m runtime.shadow.worker LINK`, started by `runtime.shadow.process` alone.

A process of its own, at the lowest priority and with one thread of computing: it takes no time from the inspection,
holds no lock of its Python, and may crash, hang or be killed without any harm to the line. LINK is the number of an
inherited socket. It ends when the link does; Ctrl-C and SIGTERM are blocked.
"""

import contextlib
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from runtime.common.errors import UserError
from runtime.detector import Detector, load
from runtime.engines.sidecar import Threshold
from runtime.images.mask import result_inside
from runtime.images.opencv import opencv
from runtime.images.overlay import draw, thumbnail
from runtime.images.pixels import Image8
from runtime.images.reduced_map import reduced_map
from runtime.result import Result
from runtime.shadow.word import PICTURE_WIDTH

GIVE_WAY = 19  # of niceness: what nobody else wants
QUALITY = 80  # of a picture, JPEG


def opened(asked: Mapping[str, Any]) -> Detector:
    """Return the candidate. Raises `UserError` where it cannot judge, or is another file than it was."""
    detector = load(asked["engine"], threads=1, **asked["load"])
    if detector.hashes.engine != asked["sha256"]:
        detector.close()
        raise UserError("the candidate must stay the file that it was", "another file", "start again")
    value, of_map = asked["limits"]
    detector.use(Threshold(value, "", map_value=of_map))
    return detector


def judged(detector: Detector, task: Mapping[str, Any], image: Image8, masks: dict[str, Any]) -> dict[str, Any]:
    """Return what the candidate says of a frame, and a picture where it says another thing. Raises `UserError`."""
    source, shown = task["source"], task["result"]
    if "inside" in task:
        masks[source] = task["inside"]
    result = detector(image)
    inside = masks.get(source)
    if inside is not None:
        result = result_inside(result, inside, detector.sidecar.scoring)
    differ = "none" != result.verdict != shown["verdict"]
    return {
        "verdict": result.verdict,
        "score": result.score,
        "reason": result.reason,
        "picture": _picture(image, result, shown, detector) if differ else b"",
    }


def _picture(image: Image8, result: Result, shown: Mapping[str, Any], detector: Detector) -> bytes:
    """Return the JPEG of a frame with the map of the engine that calls it anomalous."""
    maximum = detector.sidecar.score_maximum
    if result.verdict != "anomalous":
        maximum = shown["maximum"] or maximum
        limits = (shown["threshold"], shown["map_threshold"])
        result = Result(shown["map"], shown["score"], "anomalous", *limits, {})
    small = thumbnail(image, PICTURE_WIDTH) if image.shape[1] > PICTURE_WIDTH else image
    result = replace(result, anomaly_map=reduced_map(result.anomaly_map, PICTURE_WIDTH))
    cv2 = opencv()
    drawn = cv2.cvtColor(draw(small, result, maximum), cv2.COLOR_RGB2BGR)
    done, jpeg = cv2.imencode(".jpg", drawn, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return bytes(jpeg) if done else b""


def give_way() -> None:
    """Let every thread of this process, and those that they start, have what nobody else wants."""
    with contextlib.suppress(OSError):
        os.nice(GIVE_WAY - os.nice(0))
        for thread in Path("/proc/self/task").iterdir():  # Linux: a niceness and a policy are a thread's
            _give_way(int(thread.name))


def _give_way(thread: int) -> None:
    """A container may forbid the one and not the other; a thread may have ended."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, thread, GIVE_WAY)
    with contextlib.suppress(OSError):
        os.sched_setscheduler(thread, os.SCHED_IDLE, os.sched_param(0))


def serve(link: "Connection[Any, Any]") -> None:
    """Open what is asked for, then judge frame after frame until the link ends."""
    asked = link.recv()
    if asked["gently"]:
        give_way()
    try:
        detector = opened(asked)
    except UserError as error:
        link.send({"error": str(error)})
        return
    except Exception as error:  # a library's, for a file that is damaged in a way that nobody thought of
        link.send({"error": f"the candidate must be an engine that opens; found {type(error).__name__}: {error}"})
        return
    with detector:
        height, width = detector.session.input_size
        give_way()
        link.send({"map_size": (height, width), "device": detector.session.device})
        masks: dict[str, Any] = {}
        while True:
            task = link.recv()
            image = np.empty(task["shape"], np.uint8)
            link.recv_bytes_into(image.data.cast("B"))
            try:
                said = judged(detector, task, image, masks)
            except Exception as error:  # the next frame may go well
                said = {"error": " ".join(f"{error}".split()) or type(error).__name__}
            link.send(said)


def main() -> None:
    """Judge until the inspection has gone."""
    opencv().setNumThreads(1)
    np.seterr(all="ignore")
    with contextlib.suppress(EOFError, OSError), Connection(int(sys.argv[1])) as link:
        serve(link)


if __name__ == "__main__":
    main()
