"""The commands that are killed: how each is run, and what must stand afterwards."""

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

import runtime
from export import build_engine, calibration_data
from export.calibration_data import read_calibration_data
from export.model.checkpoint import load_checkpoint
from runtime import infer
from runtime.engines.sidecar import read_sidecar
from runtime.records.read import Query, judgements
from tests.reliability.forks import Main
from tests.reliability.readers import checkpoint_of
from tests.support.tiny_engine import write_tiny_engine
from train import fit, set_threshold

SIZE = (32, 48)
HIDDEN_OF_OURS = (".part-", ".building-", ".refill-", ".lock")


@dataclass(frozen=True)
class Victim:
    """`words` are the command's for try `number`; `check` raises unless what stands in the folder is whole.

    `leftovers` names what must be gone once the command has run to its end.
    """

    name: str
    main: Main
    words: Callable[[int], list[object]]
    check: Callable[[], None]
    folder: Path

    def leftovers(self) -> list[str]:
        """Return the temporary files and locks of ours in the folder."""
        names = (path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*"))
        return [name for name in names if any(mark in name for mark in HIDDEN_OF_OURS)]


def pictures(folder: Path, count: int, seed: int = 0, size: tuple[int, int] = (48, 64)) -> Path:
    """Write seeded textures, each a bit shifted, and return their folder."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    texture = np.kron(rng.integers(60, 120, (size[0] // 4, size[1] // 4, 3), np.uint8), np.ones((4, 4, 1), np.uint8))
    for number in range(count):
        image = np.roll(texture, number, axis=1)
        if number % 4 == 3:
            image = np.minimum(image.astype(int) + 120, 255).astype(np.uint8)  # bright: anomalous to a tiny engine
        Image.fromarray(image).save(folder / f"{number:03d}.png")
    return folder


def fitting(folder: Path) -> Victim:
    """Training, resumed where a killed run has left its state."""
    data, out = pictures(folder / "good", 8), folder / "out" / "cable.pt"

    def words(number: int) -> list[object]:
        state = out.with_suffix(".training.pt")
        tiny = ["--taps", "layer1", "--size", "32x48", "--blocks", "1", "--batch", "4", "--weights", "random"]
        recipe = ["--meta-epochs", "3", "--sub-epochs", "1", "--learning-rate", "1e-3", "--accept-poor"]
        return ["--data", data, "--out", out, *tiny, *recipe, *(["--resume"] if state.exists() else [])]

    def check() -> None:
        if out.exists():
            load_checkpoint(out)

    return Victim("train.fit", fit.main, words, check, out.parent)


def building(folder: Path) -> Victim:
    """The build of an engine that stands already, in FP32 and FP16."""
    (folder / "made").mkdir()
    model = checkpoint_of(folder / "made")
    out = folder / "engine" / "cable.plan"
    scores = folder / "scores.json"

    def check() -> None:
        if not out.with_suffix(".json").exists():
            return
        frames = [np.full((*SIZE, 3), 90, np.uint8), np.arange(32 * 48 * 3, dtype=np.uint8).reshape(*SIZE, 3)]
        found = []
        for name in ("cable.onnx", "cable.fp16.onnx"):
            with runtime.load(out.parent / name, backend="onnxruntime", threads=1) as detector:
                found.append([detector(frame).score for frame in frames])
        if scores.exists():
            assert np.allclose(json.loads(scores.read_text()), found, atol=1e-4), found
        scores.write_text(json.dumps(found))

    def words(number: int) -> list[object]:
        if number % 4 == 0:  # the export too, and not only what follows it
            model.with_suffix(".unfused.onnx").unlink(missing_ok=True)
        return [model, "--out", out, "--fp16", "--no-plan", "--allow-parity-miss"]

    return Victim("export.build_engine", build_engine.main, words, check, out.parent)


def calibrating(folder: Path) -> Victim:
    """A calibration set filled from one folder and from another, in turn."""
    sources = [pictures(folder / name, 24, seed) for seed, name in enumerate(("first", "second"))]
    out = folder / "calibration" / "set"

    def check() -> None:
        if out.exists() and any(out.glob("*.png")):
            data = read_calibration_data(out)
            assert len(data.paths) == 24 and data.origin in ("first", "second")

    def words(number: int) -> list[object]:
        return ["--from", sources[number % 2], "--count", 24, "--out", out]

    return Victim("export.calibration_data", calibration_data.main, words, check, out.parent)


def choosing(folder: Path) -> Victim:
    """A threshold that is set by hand in an engine, a different one each time."""
    (folder / "engine").mkdir()
    engine = write_tiny_engine(folder / "engine")

    def check() -> None:
        assert 0.5 <= read_sidecar(engine).threshold.value <= 2.5
        with runtime.load(engine, backend="onnxruntime", threads=1) as detector:
            assert detector(np.full((*SIZE, 3), 255, np.uint8)).verdict in ("anomalous", "none")

    def words(number: int) -> list[object]:
        return [engine, "--value", 0.5 + number % 20 / 10, "--default"]

    return Victim("train.set_threshold", set_threshold.main, words, check, engine.parent)


def inspecting(folder: Path, network: list[object]) -> Victim:
    """An inspection with every sink on; `network` are the words for those that need another program."""
    engine = write_tiny_engine(folder)
    source, out = pictures(folder / "line", 60), folder / "out"

    def words(number: int) -> list[object]:
        files = ["--output", out / "folder", "--json-file", out / "lines.jsonl", "--video", out / "line.mp4"]
        events = ["--events", out / "events", "--event-before", 2, "--event-after", 2, "--log", out / "log.db"]
        return ["--engine", engine, "--source", source, "--threads", 1, *files, *events, *network]

    def check() -> None:
        for path in (out / "lines.jsonl", out / "folder" / "frames.jsonl"):
            for line in path.read_bytes().splitlines() if path.exists() else ():
                assert json.loads(line)["verdict"] in ("good", "anomalous", "none")
        for path in out.rglob("[!.]*"):
            _check_file(path)
        if (out / "log.db").exists():
            _check_log(out / "log.db")

    return Victim("runtime.infer with every sink", infer.main, words, check, out)


def _check_log(path: Path) -> None:
    """Raise unless the inspection log is whole, and has each judgement once, with its run."""
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    frames: dict[str, list[int]] = {}
    for record in judgements(path, Query(), newest_first=False):
        frames.setdefault(record["run"], []).append(record["frame"])
        assert record["engine_sha256"], "a judgement without its run"
    assert all(of_run == sorted(set(of_run)) for of_run in frames.values()), frames


def _check_file(path: Path) -> None:
    """Raise unless a picture, a video or an event's JSON is whole."""
    if any(part.startswith(".") for part in path.parts):
        return
    if path.suffix in (".png", ".jpg"):
        with Image.open(path) as picture:
            picture.load()
    elif path.suffix == ".json":
        json.loads(path.read_text(encoding="utf-8"))
    elif path.suffix == ".mp4":
        capture = cv2.VideoCapture(str(path))
        assert capture.read()[0], f"{path.name} does not play"
        capture.release()


def emptied(victim: Victim) -> None:
    """Let an inspection's output begin anew, so that checking it does not take longer and longer."""
    shutil.rmtree(victim.folder, ignore_errors=True)
    victim.folder.mkdir(parents=True)
