"""Run the inspection for long and tell whether it holds: python -m runtime.soak --engine cable.onnx --minutes 60.

A generated video is decoded, judged and written as JSON lines, over and over, as `runtime.infer` does it, with any of
its sinks and its page beside them. Held against what a box that nobody watches needs: memory, open files and threads
that stay, every frame in every sink, an execution time without outliers.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np

from runtime.common.argument_types import output_folder, positive
from runtime.common.errors import UserError, run_command
from runtime.common.files import write_json
from runtime.common.machine import open_handles, own_bytes, system_threads
from runtime.common.program import program_name
from runtime.common.soak_result import SAMPLES, Held, SoakResult, before_and_after
from runtime.detector import Detector
from runtime.images.opencv import opencv
from runtime.images.pixels import Image8
from runtime.inspection import Inspection
from runtime.overhead import open_engine
from runtime.overheads.generated import HEIGHT, WIDTH, Generated, from_memory
from runtime.records.options import run_of
from runtime.serve import arguments as serve_arguments
from runtime.sinks import arguments as sink_arguments
from runtime.sinks.delivery import Deliveries
from runtime.sinks.inspection_log import log_among
from runtime.sinks.json_lines import LinesSink
from runtime.sinks.judgement import Judgement, Sink
from runtime.sinks.queueing import Counts
from runtime.sources.video import VideoFile

if TYPE_CHECKING:
    from runtime.serve.server import Server

CLIP_FRAMES = 150


def looped_video(path: Path, seconds: float, fps: float | None = None) -> Iterator[Image8]:
    """Yield a video's images over and over for `seconds`, really decoded: at `fps`, or as fast as they are judged."""
    due_s = time.perf_counter()
    end_s = due_s + seconds
    while time.perf_counter() < end_s:
        with VideoFile(path) as video:
            for frame in video:
                due_s = max(due_s + (1 / fps if fps else 0), time.perf_counter())  # nothing is caught up with
                time.sleep(max(0.0, due_s - time.perf_counter()))
                if time.perf_counter() >= end_s:
                    return
                yield frame.image


def write_clip(path: Path) -> None:
    """Write a video of `CLIP_FRAMES` frames, seeded: a texture that drifts, at times with a bright scratch."""
    cv2, texture = opencv(), next(from_memory(1, []))
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 30, (WIDTH, HEIGHT))  # OpenCV's own
    for number in range(CLIP_FRAMES):
        frame: Image8 = np.roll(texture, 2 * number, axis=1)
        if number % 10 == 0:
            cv2.line(frame, (200, 100 + number), (330, 140 + number), (250, 250, 250), 5)
        writer.write(frame)
    writer.release()


Page = Callable[[Inspection, Deliveries], "Server | None"]  # opens the page of an inspection that is about to begin


def soak(
    detector: Detector,
    minutes: float,
    folder: Path,
    fps: float | None = None,
    sinks: Sequence[Sink] = (),
    page: Page = lambda inspection, deliveries: None,
) -> SoakResult:
    """Judge the generated video for `minutes`, its clip and JSON lines in `folder`; `UserError` if that has lines.

    Owns the `sinks`, which are given every frame beside the lines.
    """
    lines, clip = folder / "frames.jsonl", folder / "clip.avi"
    if lines.exists():
        raise UserError(f"{lines} must not exist yet", "a file", "choose another --out")
    write_clip(clip)
    source = Generated(str(clip), looped_video(clip, 60 * minutes, fps))
    started, samples = time.perf_counter(), dict[int, Held]()

    def sample(_: Judgement) -> None:
        place = int(SAMPLES * (time.perf_counter() - started) / (60 * minutes))
        if place not in samples:
            samples[place] = Held(own_bytes(), open_handles(), system_threads())

    deliveries = Deliveries([LinesSink(lines), *sinks], patience_s=30.0)  # a file's frames wait for a slow disk
    inspection = Inspection([source], detector, [deliveries, SimpleNamespace(offer=sample)])
    with deliveries, inspection, ExitStack() as stack:
        server = page(inspection, deliveries)
        if server is not None:
            inspection.add(stack.enter_context(server))
        inspection.run()
    elapsed_s = time.perf_counter() - started
    return _result(source, inspection, deliveries.counts(), samples, elapsed_s, detector.session.device)


def _result(
    source: Generated,
    inspection: Inspection,
    counts: Sequence[Counts],
    samples: Mapping[int, Held],
    elapsed_s: float,
    device: str,
) -> SoakResult:
    before, after = before_and_after(samples)  # raises where no frame was judged, so that there are no lines
    lines = Path(source.name).with_name("frames.jsonl")
    written = {json.loads(line)["frame"] for line in lines.read_bytes().splitlines()} & set(range(source.read))
    p50, _, p99 = inspection.summary.percentiles_ms()["execute"]
    return SoakResult(
        minutes=elapsed_s / 60,
        frames_read=source.read,
        frames_judged=inspection.summary.frames,
        lines_written=len(written),
        memory_before=before.memory,
        memory_after=after.memory,
        execute_p50_ms=p50,
        execute_p99_ms=p99,
        fps=source.read / elapsed_s,
        device=device,
        handles_before=before.handles,
        handles_after=after.handles,
        threads_before=before.threads,
        threads_after=after.threads,
        delivered={sink.name: sink.delivered for sink in counts[1:]},
        undelivered={sink.name: sink.undelivered for sink in counts[1:]},
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the soak and print what it came to; the status is 1 where a limit was not held."""
    parser = argparse.ArgumentParser(prog=program_name("python -m runtime.soak"), description=__doc__)
    parser.add_argument("--minutes", type=positive, default=60.0, metavar="M", help="how long (default: %(default)s)")
    parser.add_argument("--fps", type=positive, metavar="N", help="a sensor's rate (default: as fast as it goes)")
    parser.add_argument("--out", type=output_folder, metavar="DIR", help="keep frames.jsonl and soak.json here")
    sink_arguments.add_arguments(parser)
    serve_arguments.add_arguments(parser)
    arguments, detector = open_engine(parser, argv)
    sink_arguments.check_arguments(parser, arguments)
    with detector, sink_arguments.only_writer(arguments), tempfile.TemporaryDirectory() as temporary:
        folder = arguments.out or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        run = run_of(arguments, detector.described(), ["clip"])
        sinks = sink_arguments.sinks_from(arguments, detector.sidecar.score_maximum, run=run)

        def page(inspection: Inspection, deliveries: Deliveries) -> "Server | None":
            states, counts = inspection.states, deliveries.counts
            return serve_arguments.server_from(arguments, inspection.recipes, states, counts, log_among(sinks))

        outcome = soak(detector, arguments.minutes, folder, arguments.fps, sinks, page)
        if arguments.out:
            write_json(folder / "soak.json", asdict(outcome))
    print(outcome.text())
    return 0 if all(held for _, held in outcome.checks()) else 1


def command() -> int:
    """Run `main` as a program: the exit status."""
    return run_command(main)


if __name__ == "__main__":
    sys.exit(command())
