"""Frames that come in another way than the training images did are told, once a source."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from runtime import capture, infer
from runtime.common.errors import run_command
from runtime.engines.sidecar import read_sidecar, write_sidecar
from runtime.images.facts import ImageFacts
from runtime.images.preprocess import PLAIN, read_image
from tests.support.tiny_engine import write_tiny_engine
from train.data.facts import facts_of

RNG = np.random.default_rng(1)


def pictures(folder: Path, suffix: str, **options: object) -> Path:
    folder.mkdir()
    for index in range(3):
        Image.fromarray(RNG.integers(40, 60, (64, 96, 3), dtype=np.uint8)).save(folder / f"{index}.{suffix}", **options)
    return folder


def engine_trained_on(facts: ImageFacts, folder: Path, versions: dict[str, str]) -> Path:
    engine = write_tiny_engine(folder)
    write_sidecar(engine, replace(read_sidecar(engine), image_facts=facts, versions=versions))
    return engine


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    facts = facts_of(sorted(pictures(tmp_path / "good", "png").iterdir()), PLAIN)
    return engine_trained_on(facts, tmp_path, {"opencv-python-headless": cv2.__version__})


def said(capsys: pytest.CaptureFixture[str], engine: Path, source: Path) -> str:
    assert run_command(infer.main, ["--engine", str(engine), "--source", str(source)]) == 0
    return capsys.readouterr().err


def test_other_files_than_trainings_are_told_once(engine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    told = said(capsys, engine, source := pictures(tmp_path / "jpegs", "jpg", quality=90))
    note = f"note: {source} gives JPEG 4:2:0 quality 90, 8 bits, the model was trained on PNG RGB, 8 bits (3 images): "
    assert told.count(note) == 1 and "runtime.capture from this very source" in told
    assert "note:" not in said(capsys, engine, tmp_path / "good")
    assert "note:" not in said(capsys, engine, pictures(tmp_path / "bitmaps", "bmp"))


def test_training_on_captures_of_a_source_is_training_on_that_source(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    writer = cv2.VideoWriter(str(tmp_path / "line.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (96, 64))
    for _ in range(4):
        writer.write(RNG.integers(40, 60, (64, 96, 3), dtype=np.uint8))
    writer.release()
    taken = ["--source", str(tmp_path / "line.avi"), "--output", str(tmp_path / "good")]
    assert run_command(capture.main, taken) == 0
    facts = facts_of(sorted((tmp_path / "good").iterdir()), PLAIN)
    same = engine_trained_on(facts, tmp_path, {"opencv-python-headless": cv2.__version__})
    assert "note:" not in said(capsys, same, tmp_path / "line.avi")
    frames = pictures(tmp_path / "png", "png")
    assert "the model was trained on MJPG" in said(capsys, same, frames)
    older = engine_trained_on(facts, tmp_path, {"opencv-python-headless": "4.1.0.25"})
    assert "is decoded by OpenCV" in said(capsys, older, tmp_path / "line.avi")


def test_a_model_whose_images_nobody_looked_at_says_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = pictures(tmp_path / "jpegs", "jpg")
    facts = ImageFacts.of(read_image(path) for path in folder.iterdir())
    assert "note:" not in said(capsys, engine_trained_on(facts, tmp_path, {}), folder)
