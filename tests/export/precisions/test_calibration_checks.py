"""Calibration images that repeat, or that the model itself calls anomalous, say nothing of INT8."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from export.calibration_data import main as fill
from export.graph.onnx_files import get_info, set_info
from export.images.parity_images import good_images
from export.precisions.answers import answers_of
from export.precisions.parity import Budget
from export.precisions.typed_graph import TypingOptions, type_graph
from runtime.common.errors import UserError, run_command
from runtime.images.preprocess import read_image, resize
from tests.support.export_fixtures import CALIBRATION_DATA
from tests.support.onnx_inspection import SIZE, small_model

PHOTOS = sorted(CALIBRATION_DATA.glob("*.jpg"))


@pytest.fixture
def own(tmp_path: Path) -> Path:
    (tmp_path / "own").mkdir()
    for path in PHOTOS[:12]:
        shutil.copy(path, tmp_path / "own" / path.name)
    return tmp_path / "own"


def with_threshold(value: float) -> onnx.ModelProto:
    model = onnx.ModelProto.FromString(small_model().SerializeToString())
    info = get_info(model, "")
    threshold = replace(info.sidecar.threshold, value=value)
    set_info(
        model, replace(info, sidecar=replace(info.sidecar, thresholds={info.sidecar.default_threshold: threshold}))
    )
    return model


def test_pictures_that_repeat_are_refused_and_told(own: Path) -> None:
    for index, path in enumerate(sorted(own.iterdir())):  # other bytes each time, the same pixels
        Image.new("RGB", (64, 64)).save(own / f"black_{index}.png", compress_level=index % 10)
        path.unlink()
    with pytest.raises(UserError, match="4 or more different calibration images; found 1 among 12, the others repeat"):
        type_graph(small_model(), TypingOptions("int8", own), lambda line: None)
    for path in PHOTOS[:4]:
        shutil.copy(path, own / path.name)
    said: list[str] = []
    type_graph(with_threshold(2), TypingOptions("int8", own, budget=Budget(100, 100)), said.append)
    assert any("note: 11 of 16 calibration images repeat others" in line for line in said)


def test_pictures_that_the_model_itself_calls_anomalous_are_refused(own: Path) -> None:
    frames = [resize(read_image(path), SIZE) for path in sorted(own.iterdir())[::3]]
    scores = np.sort(answers_of(small_model(), good_images(frames)).scores.astype(float))
    low, middle = with_threshold(scores[0] - 1e-3), with_threshold((scores[1] + scores[2]) / 2)
    options = TypingOptions("int8", own, budget=Budget(100, 100))
    with pytest.raises(UserError, match=r"found 4 of 4 that the FP32 model itself calls anomalous; .*--allow"):
        type_graph(low, options, lambda line: None)
    for model, with_options, told in (
        (low, replace(options, allow_anomalous=True), "calls 4 of 4 calibration images anomalous"),
        (middle, options, "calls 2 of 4 calibration images anomalous"),
        (low, TypingOptions("fp16", own, budget=Budget(100, 100)), "calls 12 of 12 calibration images anomalous"),
    ):
        said: list[str] = []
        type_graph(model, with_options, said.append)
        assert any(told in line for line in said)


def test_a_camera_that_repeats_itself_is_told_while_the_set_is_filled(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for index in range(5):
        (tmp_path / "from").mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (index // 3, 0, 0)).save(tmp_path / f"from/{index}.png")
    assert run_command(fill, ["--from", str(tmp_path / "from"), "--out", str(tmp_path / "set")]) == 0
    assert "note: 3 images repeat others" in capsys.readouterr().err
