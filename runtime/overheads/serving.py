"""What a frame costs more by a server than by the file here, by shared memory and by the network, all in turn."""

import time
from dataclasses import replace

import numpy as np

from runtime.detector import Detector, load
from runtime.engines.remote.address import RemoteEngine
from runtime.engines.remote.options import ServerOptions
from runtime.images.pixels import Image8
from runtime.overheads.timing import WARM_UP

KINDS = 8  # different frames
SENT = {"by shared memory, where it can": True, "by the network": False}


def serving_overhead(detector: Detector, engine: RemoteEngine, options: ServerOptions, frames: int, rounds: int) -> str:
    """Return the table: `detector` is the file's, `engine` the same on a server. Frames are of the engine's own size.

    Raises `UserError` where the server does not answer.
    """
    height, width = detector.session.frame_size
    drawn = np.random.default_rng(0).integers(0, 256, (KINDS, height, width, 3), dtype=np.uint8)
    remote = {name: load(engine, server=replace(options, shared_memory=shared)) for name, shared in SENT.items()}
    ways = {"here": detector, **remote}
    try:
        differ = [name for name, other in remote.items() if not _same(detector, other, drawn)]
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, one in ways.items():
                times[name] += _times_ms(one, drawn, frames)
    finally:
        for other in remote.values():
            other.close()
    here = float(np.median(times["here"]))
    lines = [
        f"frames of {width}x{height}, here {detector.session.device}, there {remote[next(iter(SENT))].session.device}",
        f"{'milliseconds a frame':<36}{'median':>9}{'p10':>9}{'p90':>9}{'beside here':>13}",
    ]
    for name, found in times.items():
        median, low, high = np.percentile(found, (50, 10, 90))
        lines.append(f"  {name:<34}{median:9.3f}{low:9.3f}{high:9.3f}{median - here:+13.3f}")
    lines.append(
        f"scores and maps differ: {', '.join(differ)}" if differ else "scores and maps are the same, bit for bit"
    )
    return "\n".join(lines)


def _same(one: Detector, other: Detector, frames: Image8) -> bool:
    pairs = [(one(frame), other(frame)) for frame in frames]
    return all(a.score == b.score and np.array_equal(a.anomaly_map, b.anomaly_map) for a, b in pairs)


def _times_ms(detector: Detector, drawn: Image8, frames: int) -> list[float]:
    times = []
    for number in range(frames + WARM_UP):
        started = time.perf_counter()
        detector(drawn[number % KINDS])
        times.append(1e3 * (time.perf_counter() - started))
    return times[WARM_UP:]
