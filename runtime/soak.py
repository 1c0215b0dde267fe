"""Run the inspection for long and tell whether it holds: python -m runtime.soak --engine cable.onnx --minutes 60.

A generated video is decoded, judged and written as JSON lines, over and over, as `runtime.infer` does it. Held against
what a box that nobody watches needs: memory that stays, every frame's line, an execution time without outliers.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from runtime.common.argument_types import positive
from runtime.common.errors import UserError, run_command
from runtime.common.files import write_json
from runtime.common.machine import resident_bytes
from runtime.common.program import program_name
from runtime.detector import Detector
from runtime.images.opencv import opencv
from runtime.images.pixels import Image8
from runtime.overhead import HEIGHT, WIDTH, Generated, from_memory, judge_all, open_engine
from runtime.sinks.judgement import Judgement
from runtime.sources.video import VideoFile

GROWTH_LIMIT = 1.0  # per cent of resident memory, after the warm-up
TAIL_LIMIT = 1.5  # p99 of the execution over its p50
WARM_UP = 0.1  # of the time: libraries allocate, files and rings reach their size
SAMPLES = 600  # of resident memory over the whole time
CLIP_FRAMES = 150


@dataclass(frozen=True)
class SoakResult:
    """What a soak came to; memory in bytes is the median of the first and last tenth of the samples after warm-up."""

    minutes: float
    frames_read: int
    frames_judged: int
    lines_written: int
    memory_before: int
    memory_after: int
    execute_p50_ms: float
    execute_p99_ms: float
    fps: float
    device: str

    def checks(self) -> list[tuple[str, bool]]:
        """Return what was held against a limit, in words, and whether it held."""
        lost, tail = self.frames_read - self.lines_written, self.execute_p99_ms / self.execute_p50_ms
        growth = 100 * (self.memory_after / self.memory_before - 1)
        memory = f"{self.memory_before / 1e6:.1f} MB after warm-up, {self.memory_after / 1e6:.1f} MB at the end"
        times = f"p50 {self.execute_p50_ms:.2f} ms, p99 {self.execute_p99_ms:.2f} ms"
        return [
            (f"lost results: {lost} of {self.frames_read}", lost == 0),
            (f"resident memory: {memory}, {growth:+.2f} % (limit {GROWTH_LIMIT:g} %)", growth <= GROWTH_LIMIT),
            (f"execution: {times}, ratio {tail:.2f} (limit {TAIL_LIMIT})", tail <= TAIL_LIMIT),
        ]

    def text(self) -> str:
        """Return the outcome as lines for a person."""
        head = f"{self.frames_judged} frames in {self.minutes:.1f} minutes, {self.fps:.1f} per second on {self.device}"
        return "\n".join([head, *(f"  {'held' if held else 'NOT HELD'}  {words}" for words, held in self.checks())])


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


def _memory(samples: Mapping[int, int]) -> tuple[int, int]:
    """Return the medians of the first and last tenth of the samples after the warm-up."""
    counted = [samples[place] for place in sorted(samples) if place >= WARM_UP * SAMPLES]
    if not counted:
        raise UserError("a soak must judge frames after its warm-up", "none", "give it more --minutes")
    tenth = max(1, len(counted) // 10)
    return int(np.median(counted[:tenth])), int(np.median(counted[-tenth:]))


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


def soak(detector: Detector, minutes: float, folder: Path, fps: float | None = None) -> SoakResult:
    """Judge the generated video for `minutes`, its clip and JSON lines in `folder`; `UserError` if that has lines."""
    lines, clip = folder / "frames.jsonl", folder / "clip.avi"
    if lines.exists():
        raise UserError(f"{lines} must not exist yet", "a file", "choose another --out")
    write_clip(clip)
    source = Generated(str(clip), looped_video(clip, 60 * minutes, fps))
    started, samples = time.perf_counter(), dict[int, int]()

    def sample(_: Judgement) -> None:
        place = int(SAMPLES * (time.perf_counter() - started) / (60 * minutes))
        if place not in samples:
            samples[place] = resident_bytes()

    summary = judge_all(source, detector, lines, sample)
    elapsed_s = time.perf_counter() - started
    written = {json.loads(line)["frame"] for line in lines.read_bytes().splitlines()} & set(range(source.read))
    p50, _, p99 = summary.percentiles_ms()["execute"]
    before, after = _memory(samples)
    return SoakResult(
        minutes=elapsed_s / 60,
        frames_read=source.read,
        frames_judged=summary.frames,
        lines_written=len(written),
        memory_before=before,
        memory_after=after,
        execute_p50_ms=p50,
        execute_p99_ms=p99,
        fps=source.read / elapsed_s,
        device=detector.session.device,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the soak and print what it came to; the status is 1 where a limit was not held."""
    parser = argparse.ArgumentParser(prog=program_name("python -m runtime.soak"), description=__doc__)
    parser.add_argument("--minutes", type=positive, default=60.0, metavar="M", help="how long (default: %(default)s)")
    parser.add_argument("--fps", type=positive, metavar="N", help="a sensor's rate (default: as fast as it goes)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="keep frames.jsonl and soak.json here")
    arguments, detector = open_engine(parser, argv)
    with detector, tempfile.TemporaryDirectory() as temporary:
        folder = arguments.out or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        outcome = soak(detector, arguments.minutes, folder, arguments.fps)
        if arguments.out:
            write_json(folder / "soak.json", asdict(outcome))
    print(outcome.text())
    return 0 if all(held for _, held in outcome.checks()) else 1


def command() -> int:
    """Run `main` as a program: the exit status."""
    return run_command(main)


if __name__ == "__main__":
    sys.exit(command())
