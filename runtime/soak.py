"""Run the inspection for long and tell whether it holds: python -m runtime.soak --engine cable.onnx --minutes 60.

A generated video is decoded, judged and written as JSON lines, over and over, as `runtime.infer` does it. Held against
what a box that nobody watches needs: memory that stays, every frame's line, an execution time without outliers.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
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
from runtime.overhead import HEIGHT, WIDTH, judge_all, open_engine
from runtime.sinks.judgement import Judgement
from runtime.sources.frame import Frame, Source
from runtime.sources.open import VideoFile

GROWTH_LIMIT = 0.01  # of resident memory, after the warm-up
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
        before_mb, after_mb = 1e-6 * self.memory_before, 1e-6 * self.memory_after
        growth = f"{100 * self.growth:+.2f} % (limit {100 * GROWTH_LIMIT:.0f} %)"
        memory = f"{before_mb:.1f} MB after warm-up, {after_mb:.1f} MB at the end"
        times = f"p50 {self.execute_p50_ms:.2f} ms, p99 {self.execute_p99_ms:.2f} ms"
        return [
            (f"lost results: {lost} of {self.frames_read}", lost == 0),
            (f"resident memory: {memory}, {growth}", self.growth <= GROWTH_LIMIT),
            (f"execution: {times}, ratio {tail:.2f} (limit {TAIL_LIMIT})", tail <= TAIL_LIMIT),
        ]

    @property
    def growth(self) -> float:
        """Growth of resident memory after the warm-up, as a share."""
        return self.memory_after / self.memory_before - 1

    def text(self) -> str:
        """Return the outcome as lines for a person."""
        head = f"{self.frames_judged} frames in {self.minutes:.1f} minutes, {self.fps:.1f} per second on {self.device}"
        return "\n".join([head, *(f"  {'held' if held else 'NOT HELD'}  {words}" for words, held in self.checks())])


class LoopedVideo(Source):
    """A video file that is opened again when it ends, for `seconds`: real decoding for any length of time.

    Frames come at `fps`, as a sensor's do, or without it as fast as they are judged; `read` counts those that it
    yielded. All of them are to be judged.
    """

    live = False

    def __init__(self, path: Path, seconds: float, fps: float | None = None) -> None:
        self.name, self.read = str(path), 0
        self._path, self._period_s = path, 1 / fps if fps else 0.0
        self._due_s = time.perf_counter()
        self._end_s = self._due_s + seconds

    def __iter__(self) -> Iterator[Frame]:
        while time.perf_counter() < self._end_s:
            with VideoFile(self._path) as video:
                for frame in video:
                    # a sensor that had to wait does not catch up
                    self._due_s = max(self._due_s + self._period_s, time.perf_counter())
                    time.sleep(max(0.0, self._due_s - time.perf_counter()))
                    if time.perf_counter() >= self._end_s:
                        return
                    index, self.read = self.read, self.read + 1
                    yield Frame(frame.image, f"frame_{index:08d}", index, time.time())

    def close(self) -> None:
        """End the iteration at the next frame."""
        self._end_s = 0.0


class _Watch:
    """Samples resident memory at even times, as judgements come."""

    def __init__(self, seconds: float) -> None:
        self._every_s = seconds / SAMPLES
        self._started = time.perf_counter()
        self._samples = np.full(SAMPLES + 1, -1, np.int64)

    def __call__(self, _: Judgement) -> None:
        place = min(int((time.perf_counter() - self._started) / self._every_s), SAMPLES)
        if self._samples[place] < 0:
            self._samples[place] = resident_bytes()

    def memory(self) -> tuple[int, int]:
        """Return the medians of the first and last tenth of the samples after the warm-up."""
        samples = self._samples[int(WARM_UP * SAMPLES) :]
        samples = samples[samples >= 0]
        if not len(samples):
            raise UserError("a soak must judge frames after its warm-up", "none", "give it more --minutes")
        tenth = max(1, len(samples) // 10)
        return int(np.median(samples[:tenth])), int(np.median(samples[-tenth:]))


def write_clip(path: Path) -> None:
    """Write a video of `CLIP_FRAMES` frames, seeded: a texture that drifts, at times with a bright scratch."""
    cv2 = opencv()
    noise = np.random.default_rng(0).integers(60, 160, (HEIGHT // 4, WIDTH // 4, 3)).astype(np.uint8)
    texture = cv2.resize(noise, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 30, (WIDTH, HEIGHT))
    if not writer.isOpened():
        raise UserError("OpenCV must write Motion JPEG", "it does not", "pip install opencv-python-headless")
    for number in range(CLIP_FRAMES):
        frame: Image8 = np.roll(texture, 2 * number, axis=1)
        if number % 10 == 0:
            cv2.line(frame, (200, 100 + number), (330, 140 + number), (250, 250, 250), 5)
        writer.write(frame)
    writer.release()


def soak(detector: Detector, minutes: float, folder: Path, fps: float | None = None) -> SoakResult:
    """Judge the generated video for `minutes`, at `fps` or as fast as it goes; `folder` gets its clip and JSON lines.

    Raises `UserError` if `folder` has lines.
    """
    lines, clip = folder / "frames.jsonl", folder / "clip.avi"
    if lines.exists():
        raise UserError(f"{lines} must not exist yet", "a file", "choose another --out")
    write_clip(clip)
    source = LoopedVideo(clip, 60 * minutes, fps)
    watch, started = _Watch(60 * minutes), time.perf_counter()
    summary = judge_all(source, detector, lines, watch)
    elapsed_s = time.perf_counter() - started
    with lines.open("rb") as file:
        written = len({json.loads(line)["frame"] for line in file} & set(range(source.read)))
    p50, _, p99 = summary.percentiles_ms()["execute"]
    before, after = watch.memory()
    return SoakResult(
        minutes=elapsed_s / 60,
        frames_read=source.read,
        frames_judged=summary.frames,
        lines_written=written,
        memory_before=before,
        memory_after=after,
        execute_p50_ms=p50,
        execute_p99_ms=p99,
        fps=source.read / elapsed_s,
        device=detector.session.device,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the soak and print what it came to; the status is 1 where a limit was not held."""
    question = "Judge a generated video for long: is memory flat, is no result lost, is the execution even?"
    parser = argparse.ArgumentParser(prog=program_name("python -m runtime.soak"), description=question)
    add = parser.add_argument
    add("--minutes", type=positive, default=60.0, metavar="M", help="how long (default: %(default)s)")
    add("--fps", type=positive, metavar="N", help="a sensor's rate (default: as fast as they are judged)")
    add("--out", type=Path, metavar="DIR", help="keep frames.jsonl and soak.json here")
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
