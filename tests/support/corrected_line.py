"""A line whose verdicts people correct: a small detector of drawn cables, its page, its log, and marks by clicks."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from export import build_engine
from runtime.common.errors import run_command
from runtime.records.log import Log
from runtime.records.marks import FALSE_ALARM, MISSED
from runtime.records.run import RunRecord
from runtime.sinks.inspection_log import LogSink
from runtime.sinks.judgement import Judgement
from runtime.sources.frame import Frame
from runtime.triggers.trigger import Trigger
from tests.support.serve_rig import Rig, serving
from train import fit
from train.synthetic import write_dataset

SIZE = 128  # pixels
SMALL = ["--encoder", "efficientnet_lite0", "--taps", "features3,features5", "--size", str(SIZE), "--blocks", "4"]
QUICK = ["--schedule", "fast", "--meta-epochs", "4", "--batch", "8", "--held-out", "0.2", "--accept-poor"]
ASKED = {"X_Requested_By": "cflow-edge"}


def write_cables(root: Path, seed: int = 0, **counts: int) -> Path:
    """Draw good cables to train on, and good and bad ones to test on; `counts` as of `write_dataset`."""
    write_dataset(root, size=SIZE, seed=seed, **{"train": 40, "test_good": 8, "per_defect": 2, **counts})
    return root


def train_and_build(data: Path, checkpoint: Path) -> Path:
    """Train a small detector on drawn cables to `checkpoint` and return its engine: seconds."""
    assert run_command(fit.main, ["--data", str(data), "--out", str(checkpoint), *SMALL, *QUICK]) == 0
    assert run_command(build_engine.main, [str(checkpoint), "--fp32", "--no-plan"]) == 0
    return checkpoint.with_suffix(".onnx")


def read(path: Path) -> np.ndarray:
    """Return an image file's pixels."""
    return np.asarray(Image.open(path).convert("RGB"))


def in_warm_light(image: np.ndarray, seed: int, warmth: float = 0.06) -> np.ndarray:
    """Return a picture in the light of another lamp, each a little different: less blue, a little more red."""
    share = warmth * np.random.default_rng([seed, 78]).uniform(0.8, 1.2)
    gains = np.array([1 + 0.3 * share, 1.0, 1 - share])
    return np.clip(image * gains, 0, 255).astype(np.uint8)


@dataclass
class CorrectedLine:
    """An engine that judges parts, its page and its log at `log`."""

    rig: Rig
    sink: LogSink
    log: Path
    run: RunRecord
    source: str = "camera:0"

    def judge(self, image: np.ndarray, name: str = "", part: str = "") -> Judgement:
        """Judge a part's frame and give it to page and log."""
        number = self.rig.judged
        self.rig.judged += 1
        frame = Frame(image, name or f"{number:06d}.png", number, time.time())
        trigger = Trigger(part or f"P{number:06d}", time.monotonic() - 0.01, "http")
        one = Judgement(self.source, frame, self.rig.detector(image), trigger=trigger, run=self.run.id)
        self.rig.server.write(one)
        self.sink.write(one)
        return one

    def correct(self, judged: Judgement, reason: str = "", who: str = "Ann") -> dict[str, Any]:
        """Say by a click on the page that a verdict was wrong, and return the answer."""
        assert judged.trigger is not None
        kind = FALSE_ALARM if judged.anomalous else MISSED
        parts = self.rig.state()["parts"]
        number = next(part["number"] for part in parts if part["part"] == judged.trigger.part)
        said = {"number": number, "kind": kind, "reason": reason, "name": who}
        answer = self.rig.ask("/api/mark", "POST", said, **ASKED)
        assert answer.status == 200, answer.body
        marked: dict[str, Any] = answer.json()
        return marked

    def undo(self, number: int) -> None:
        """Take a mark back, by the log's number of its judgement."""
        assert self.rig.ask("/api/withdraw", "POST", {"judgement": number}, **ASKED).status == 200

    def judge_good(self, images: Sequence[np.ndarray], most: int = 10**6) -> int:
        """Judge good parts, and correct every false alarm among them, up to so many; return how many there were."""
        alarms = 0
        for image in images:
            judged = self.judge(image)
            if judged.anomalous and alarms < most:
                self.correct(judged, "a good part")
                alarms += 1
        return alarms


@contextmanager
def corrected_line(
    folder: Path, engine: Path, log: Path, settings: dict[str, str] | None = None, **load: Any
) -> Iterator[CorrectedLine]:
    """Open a line with `engine`, whose run has those `settings`."""
    with LogSink(Log(log)) as sink, serving(folder, log=sink.log, engine=engine, **load) as rig:
        described = rig.detector.described()
        run = RunRecord(engine=engine.name, settings={"sources": "camera:0", **(settings or {})}, **described)
        sink.log.begin(run)
        yield CorrectedLine(rig, sink, log, run)
