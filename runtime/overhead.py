"""What the runtime costs around the session: python -m runtime.overhead --engine cable.onnx.

Frames come from memory as a camera's driver leaves them there (BGR), and go the way of `runtime.infer`: source, feed,
detector, queue, JSON line in a file. The overhead of a frame is the time from one result to the next without the
session's own stages. The parts of the JSON line, which a thread of its own makes, are timed apart. With `--serve` it
is measured instead what the page costs (`runtime.serve.overhead`).
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from timeit import repeat
from types import SimpleNamespace

import numpy as np

from runtime.common.argument_types import count
from runtime.common.errors import run_command
from runtime.common.program import program_name
from runtime.common.summary import Summary
from runtime.detector import Detector, load
from runtime.engines.backends import add_arguments, load_options
from runtime.images.opencv import opencv
from runtime.images.regions import regions_above
from runtime.inspection import Inspection
from runtime.sinks.delivery import Deliveries
from runtime.sinks.json_lines import JsonLines, LinesSink, as_json, encode
from runtime.sinks.judgement import Judgement
from runtime.sources.frame import Frame, Source

SEED = 0
HEIGHT, WIDTH = 480, 640  # of the frames, in pixels
SESSION_STAGES = ("copy_in", "execute", "copy_out")
WARM_UP = 20  # frames that do not count
PATIENCE_S = 30.0  # see `runtime.sinks.delivery`: a file's frames wait for a slow disk


class Memory(Source):
    """`count` frames from memory, each turned from BGR to RGB as captures are."""

    live = False

    def __init__(self, count: int) -> None:
        self.name, self._count = "memory", count
        coarse = np.random.default_rng(SEED).integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3), np.uint8)
        self._bgr = opencv().resize(coarse, (WIDTH, HEIGHT), interpolation=opencv().INTER_CUBIC)
        self.convert_ms: list[float] = []

    def __iter__(self) -> Iterator[Frame]:
        for index in range(self._count):
            started = time.perf_counter()
            image = opencv().cvtColor(self._bgr, opencv().COLOR_BGR2RGB)
            self.convert_ms.append(1e3 * (time.perf_counter() - started))
            yield Frame(image, f"frame_{index:08d}", index, time.time())

    def close(self) -> None:
        """Nothing is open."""


def judge_all(source: Source, detector: Detector, lines: Path, also: Callable[[Judgement], None]) -> Summary:
    """Judge every frame of `source` as `runtime.infer` does, into JSON lines and `also`."""
    with (
        Deliveries([LinesSink(lines)], patience_s=PATIENCE_S) as deliveries,
        Inspection([source], detector, [deliveries, SimpleNamespace(offer=also)]) as inspection,
    ):
        inspection.run()
    return inspection.summary


def measure(detector: Detector, frames: int, folder: Path) -> dict[str, list[float]]:
    """Return every frame's milliseconds by stage; "overhead" is all but the session, the line's parts are last."""
    source = Memory(frames + WARM_UP + 1)
    noted: list[tuple[float, dict[str, float]]] = []

    def note(judgement: Judgement) -> None:
        noted.append((time.perf_counter(), judgement.result.latency_ms))

    judge_all(source, detector, folder / "frames.jsonl", note)
    whole_ms = 1e3 * np.diff([ended_s for ended_s, _ in noted])[WARM_UP:]
    counted = [stages for _, stages in noted[WARM_UP + 1 :]]
    session_ms = [sum(stages.get(stage, 0.0) for stage in SESSION_STAGES) for stages in counted]
    frame = next(iter(Memory(1)))
    return {
        "convert (capture's thread)": source.convert_ms[WARM_UP + 1 :],
        **{stage: [stages[stage] for stages in counted] for stage in counted[0] if stage != "total"},
        "overhead": list(whole_ms - session_ms),
        **_line_parts(Judgement(source.name, frame, detector(frame.image)), frames, folder),
    }


def _line_parts(judgement: Judgement, rounds: int, folder: Path) -> dict[str, list[float]]:
    """Time the parts of one judgement's JSON line, without anything beside it."""
    result, size, line = judgement.result, judgement.frame.image.shape[:2], as_json(judgement)
    empty = replace(judgement, result=replace(result, anomaly_map=np.zeros((1, 1), np.float32), map_threshold=1.0))
    with closing(JsonLines(folder / "parts.jsonl")) as lines:
        parts: dict[str, Callable[[], object]] = {
            "boxes (sink's thread)": lambda: regions_above(result.anomaly_map, result.map_threshold, size),
            "line without boxes (sink's thread)": lambda: encode(as_json(empty)),
            "write (sink's thread)": lambda: lines.append(line),
        }
        return {name: (1e3 * np.array(repeat(part, number=1, repeat=rounds))).tolist() for name, part in parts.items()}


def text(stages: dict[str, list[float]], device: str) -> str:
    """Return the table for a person: the median and the lowest decile by stage."""
    lines = [f"frames of {WIDTH}x{HEIGHT}, {device}", f"{'milliseconds':<36}{'median':>9}{'p10':>9}"]
    for stage, values in stages.items():
        median, low = np.percentile(values, (50, 10))
        lines.append(f"  {stage:<34}{median:9.3f}{low:9.3f}")
    return "\n".join(lines)


def open_engine(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> tuple[argparse.Namespace, Detector]:
    """Return what a command line says and the engine that it names."""
    parser.add_argument("--engine", type=Path, required=True, metavar="FILE", help="a .plan or .onnx with its .json")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads of an .onnx (default: all cores)")
    add_arguments(parser)
    arguments = parser.parse_args(argv)
    return arguments, load(arguments.engine, threads=arguments.threads, **load_options(arguments))


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(prog=program_name("python -m runtime.overhead"), description=__doc__)
    add = parser.add_argument
    add("--frames", type=count, default=300, metavar="N", help="frames that count (default: %(default)s)")
    add("--serve", action="store_true", help="measure instead what the page costs: --frames of each case in a round")
    add("--viewers", type=count, default=20, metavar="N", help="with --serve: clients (default: %(default)s)")
    add("--rounds", type=count, default=5, metavar="N", help="with --serve: rounds (default: %(default)s)")
    args, detector = open_engine(parser, argv)
    with detector, tempfile.TemporaryDirectory() as folder:
        if args.serve:
            from runtime.serve.overhead import page_overhead

            print(page_overhead(detector, args.engine, Memory(args.frames), args.rounds, args.viewers))
        else:
            print(text(measure(detector, args.frames, Path(folder)), detector.session.device))


def command() -> int:
    """Run `main` as a program: the exit status."""
    return run_command(main)


if __name__ == "__main__":
    sys.exit(command())
