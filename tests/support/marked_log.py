"""A log with judgements and marks, written as a line and its page write them, without a line and a page."""

import io
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import runtime
from runtime.detector import Detector
from runtime.infer import build_parser
from runtime.records.log import Log
from runtime.records.marks import Mark, judgement, pictures_of
from runtime.records.options import run_of
from runtime.records.run import RunRecord
from runtime.result import Result, result_of
from runtime.sinks.inspection_log import row_of
from runtime.sinks.judgement import Judgement
from runtime.sources.arguments import names_from
from runtime.sources.frame import Frame
from runtime.triggers.trigger import Trigger
from tests.support.tiny_engine import write_tiny_engine

SIZE = (32, 48)  # of the tiny engine's frames and map
ENGINE = "e" * 64  # the hash of an engine that is not there


def png(image: np.ndarray) -> bytes:
    """Return the bytes of a PNG."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def with_spots(*spots: tuple[int, int], level: int = 200, ground: int = 20, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Return a dark frame with a bright spot of 3 x 3 pixels around each (row, column)."""
    image = np.full((*size, 3), ground, np.uint8)
    for row, column in spots:
        image[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2] = level
    return image


@dataclass
class MarkedLog:
    """Writes a log at `path`: judgements, and what people say of them."""

    path: Path
    log: Log
    run: RunRecord = field(default_factory=RunRecord)
    threshold: float = 1.0
    recipe: str = ""
    source: str = "camera:0"
    count: int = 0

    def begin(self, settings: dict[str, str] | None = None, **facts: Any) -> None:
        """Begin a run."""
        told = {"sources": "camera:0", **(settings or {})}
        self.run = RunRecord(settings=told, **{"engine": "tiny.onnx", "engine_sha256": ENGINE, **facts})
        self.log.begin(self.run)

    def begin_as(self, engine: Path, detector: Detector, *words: str) -> None:
        """Begin a run as `runtime.infer` does with these words on its command line."""
        args = build_parser().parse_args(["--engine", str(engine), *words])
        self.run = run_of(args, detector.described(), names_from(args))
        self.threshold = detector.threshold
        self.log.begin(self.run)

    def add(self, score: float, kind: str = "", result: Result | None = None, image: Any = None, **of: Any) -> int:
        """Write a judgement with this score, or this `result`, and what is said of it; return its number.

        Of a marked one the `image` is kept, where there is one.
        """
        limits = (self.threshold, self.threshold)
        result = result or result_of(np.zeros((4, 4), np.float32), score, limits, {"execute": 1.0})
        self.count += 1
        shown = np.zeros((*SIZE, 3), np.uint8) if image is None else image
        frame = Frame(shown, of.pop("name", f"{self.count:06d}.png"), self.count, of.pop("captured_s", time.time()))
        part = of.pop("part", "")
        trigger = Trigger(part, time.monotonic(), "http") if part else None
        known = {"source": self.source, "recipe": self.recipe, "run": self.run.id, "trigger": trigger, **of}
        self.log.append([row_of(Judgement(frame=frame, result=result, **known))])
        number = newest(self.path)
        if kind:
            self.say(number, kind, image)
        return number

    def judge(self, detector: Detector, image: np.ndarray, kind: str = "", **of: Any) -> int:
        """Write the judgement of a frame by `detector`."""
        result = detector(image)
        return self.add(result.image_score, kind, result, image, **of)

    def say(self, number: int, kind: str, image: Any = None) -> None:
        """Mark a judgement, with its frame where there is one."""
        picture = ""
        if image is not None:
            picture = f"{number:09d}.png"
            pictures_of(self.path).mkdir(exist_ok=True)
            (pictures_of(self.path) / picture).write_bytes(png(image))
        self.log.mark(Mark(judgement(self.path, number), kind, picture=picture))


def newest(path: Path) -> int:
    """Return the number of the newest judgement of a log."""
    from runtime.records.read import Query, judgements

    return int(next(iter(judgements(path, Query())))["id"])


def open_tiny(folder: Path, **engine: Any) -> tuple[Path, Detector]:
    """Write a tiny engine and open it."""
    path = write_tiny_engine(folder, **engine)
    return path, runtime.load(path, threads=1, backend="onnxruntime")
