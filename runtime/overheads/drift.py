"""What the drift watch costs, in CPU time of all threads."""

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from runtime.detector import Detector
from runtime.engines.remote.address import EngineAt
from runtime.overheads.generated import Generated, from_memory
from runtime.overheads.timing import ratios
from runtime.sinks.judgement import Judgement

if TYPE_CHECKING:
    from runtime.drift.watch import DriftWatch

FPS = 25  # of the camera that is watched for drift: one frame a second is measured


def drift_overhead(detector: Detector, engine: EngineAt, frames: int, rounds: int) -> str:
    """Return the table: CPU milliseconds a frame without and with the drift watch, in turn."""
    from runtime.drift.watch import DriftWatch
    from runtime.recipes.book import Recipes
    from runtime.recipes.recipe import Recipe

    plain, watched = list[float](), list[float]()
    with DriftWatch({"memory"}, Recipes([Recipe.plain(detector, engine)])) as watch:
        _cpu_ms(detector, frames, watch)  # warm-up
        for _ in range(rounds):
            plain.append(_cpu_ms(detector, frames, None))
            watched.append(_cpu_ms(detector, frames, watch))
    how = f"medians of {rounds} rounds in turn, {FPS} frames a second"
    lines = [f"{'':<18}{'CPU ms a frame':>16}{'best round':>12}   ({how})"]
    for name, ms in (("no drift watch", plain), ("drift watch", watched)):
        lines.append(f"{name:<18}{np.median(ms):>16.3f}{min(ms):>12.3f}")
    return "\n".join([*lines, ratios(watched, plain, 4)])


def _cpu_ms(detector: Detector, frames: int, watch: "DriftWatch | None") -> float:
    """Return the CPU milliseconds a frame that all threads take to judge it, and to measure one a second."""
    first_s = time.monotonic()
    started_s = time.process_time()
    for frame in Generated("memory", from_memory(frames, [])):
        at_s = first_s + frame.index / FPS
        judged = replace(frame, monotonic_s=at_s)
        judgement = Judgement("memory", judged, detector(frame.image), engine_sha256=detector.hashes.engine)
        if watch is not None:
            watch.offer(judgement)
    if watch is not None:
        watch.settle()
    return 1e3 * (time.process_time() - started_s) / frames
