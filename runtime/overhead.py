"""What the runtime costs around the session: python -m runtime.overhead --engine cable.onnx.

Frames come from memory as a camera's driver leaves them there (BGR), and go the way of `runtime.infer`: source, feed,
detector, queue, JSON line in a file. The overhead of a frame is the time from one result to the next without the
session's own stages. The parts of the JSON line, which a thread of its own makes, are timed apart.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from runtime.common.errors import UserError, run_command
from runtime.common.program import program_name
from runtime.detector import Detector, load
from runtime.engines.backends import add_arguments, load_options
from runtime.images.opencv import opencv
from runtime.images.regions import regions_above
from runtime.inspection import Inspection
from runtime.result import Result
from runtime.sinks.delivery import Deliveries
from runtime.sinks.json_lines import JsonLines, LinesSink, as_json, encode
from runtime.sinks.judgement import Judgement
from runtime.sources.frame import Frame, Source

SEED = 0
SIZE = (480, 640)
SESSION_STAGES = ("copy_in", "execute", "copy_out")
WARM_UP = 20  # frames that do not count


class Memory(Source):
    """Frames of (height, width) `size` from memory: `count` of them, each turned from BGR to RGB as captures are."""

    live = False

    def __init__(self, size: tuple[int, int], count: int) -> None:
        self.name = "memory"
        self._count = count
        coarse = np.random.default_rng(SEED).integers(0, 256, (size[0] // 8, size[1] // 8, 3), np.uint8)
        self._bgr = opencv().resize(coarse, (size[1], size[0]), interpolation=opencv().INTER_CUBIC)
        self.convert_ms: list[float] = []

    def __iter__(self) -> Iterator[Frame]:
        for index in range(self._count):
            started = time.perf_counter()
            image = opencv().cvtColor(self._bgr, opencv().COLOR_BGR2RGB)
            self.convert_ms.append(1e3 * (time.perf_counter() - started))
            yield Frame(image, f"frame_{index:08d}", index, time.time())

    def close(self) -> None:
        """Nothing is open."""


@dataclass
class _Clock:
    """Notes the time of every judgement and the session's own share of it."""

    ended_s: list[float] = field(default_factory=list)
    session_ms: list[float] = field(default_factory=list)
    stages_ms: list[dict[str, float]] = field(default_factory=list)
    last: Judgement | None = None

    def offer(self, judgement: Judgement) -> None:
        """Note one judgement."""
        latency_ms = judgement.result.latency_ms
        self.ended_s.append(time.perf_counter())
        self.session_ms.append(sum(latency_ms.get(stage, 0.0) for stage in SESSION_STAGES))
        self.stages_ms.append(latency_ms)
        self.last = judgement

    def overhead_ms(self) -> list[float]:
        """Return, for every frame after the warm-up, the time since the one before without the session's stages."""
        whole = 1e3 * np.diff(self.ended_s)
        return list((whole - self.session_ms[1:])[WARM_UP:])


def measure(detector: Detector, size: tuple[int, int], frames: int, folder: Path) -> dict[str, list[float]]:
    """Return every frame's milliseconds by stage; "overhead" is all but the session, the line's parts are last."""
    source, clock = Memory(size, frames + WARM_UP + 1), _Clock()
    with (
        Deliveries([LinesSink(folder / "frames.jsonl")], patience_s=30.0) as deliveries,
        Inspection([source], detector, [deliveries, clock]) as inspection,
    ):
        inspection.run()
    stages: dict[str, list[float]] = {"convert (capture's thread)": source.convert_ms[WARM_UP + 1 :]}
    for stage in clock.stages_ms[0]:
        if stage != "total":
            stages[stage] = [timed[stage] for timed in clock.stages_ms[WARM_UP + 1 :]]
    stages["overhead"] = clock.overhead_ms()
    assert clock.last is not None
    return stages | _line_parts(clock.last, frames, folder)


def _line_parts(judgement: Judgement, rounds: int, folder: Path) -> dict[str, list[float]]:
    """Time the parts of one judgement's JSON line, without anything beside it."""
    lines = JsonLines(folder / "parts.jsonl")
    result, size = judgement.result, judgement.frame.image.shape[:2]
    line = as_json(judgement)
    parts = {
        "boxes (sink's thread)": lambda: regions_above(result.anomaly_map, result.map_threshold, size),
        "line without boxes (sink's thread)": lambda: encode(as_json(_without_regions(judgement, result))),
        "write (sink's thread)": lambda: lines.append(line),
    }
    try:
        return {name: [_timed(part) for _ in range(rounds)] for name, part in parts.items()}
    finally:
        lines.close()


def _without_regions(judgement: Judgement, result: Result) -> Judgement:
    empty = Result(
        np.zeros((1, 1), np.float32), result.image_score, result.verdict, result.threshold, 1.0, result.latency_ms
    )
    return Judgement(judgement.source, judgement.frame, empty)


def _timed(call: Any) -> float:
    started = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - started)


def text(stages: dict[str, list[float]], device: str, size: tuple[int, int]) -> str:
    """Return the table for a person: the median and the lowest decile by stage."""
    lines = [f"frames of {size[1]}x{size[0]}, {device}", f"{'milliseconds':<36}{'median':>9}{'p10':>9}"]
    for stage, values in stages.items():
        median, low = np.percentile(values, (50, 10))
        lines.append(f"  {stage:<34}{median:9.3f}{low:9.3f}")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(
        prog=program_name("python -m runtime.overhead"),
        description="Measure what the runtime costs around the session, by stage.",
    )
    parser.add_argument("--engine", type=Path, required=True, metavar="FILE", help="a .plan or .onnx with its .json")
    parser.add_argument("--frames", type=int, default=300, metavar="N", help="frames that count (default: %(default)s)")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads of an .onnx (default: all cores)")
    add_arguments(parser)
    args = parser.parse_args(argv)
    if args.frames < 1:
        raise UserError("--frames must be 1 or more", str(args.frames))
    with (
        tempfile.TemporaryDirectory() as folder,
        load(args.engine, threads=args.threads, **load_options(args)) as detector,
    ):
        print(text(measure(detector, SIZE, args.frames, Path(folder)), detector.session.device, SIZE))


def command() -> int:
    """Run `main` as a program: the exit status."""
    return run_command(main)


if __name__ == "__main__":
    sys.exit(command())
