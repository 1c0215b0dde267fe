"""Evaluation of a checkpoint on labelled images, and of folders that hold too few of them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from export.model.cflow import Detector, ModelConfig
from export.model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from runtime.errors import run_command
from runtime.preprocess import read_image, resize
from train import evaluate
from train.data import ImageCache, open_dataset
from train.fit import build_model
from train.score import freeze
from train.synthetic import write_dataset

SIZE = (32, 64)  # of 64 x 64: the pixel nearest to a place is never a matter of rounding


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cables")
    write_dataset(root, train=0, test_good=4, per_defect=2, size=64)  # labelled images only, as for a finished model
    return root


@pytest.fixture(scope="module")
def checkpoint(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "cable.pt"
    good = ImageCache([image.path for image in open_dataset(data).test if not image.anomalous], SIZE)
    model, weights = build_model(ModelConfig("resnet18", ("layer1",), SIZE, coupling_blocks=1), "random", good)
    maxima, threshold = freeze(model, good, 0.01, torch.device("cpu"))
    save_checkpoint(path, Checkpoint(model, maxima, {"good_quantile": threshold}, "good_quantile", weights, ""))
    return path


def naive_auroc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Count the pairs: sorted good scores below each anomalous one, ties half."""
    good = np.sort(scores[~labels])
    below = np.searchsorted(good, scores[labels], "left") + np.searchsorted(good, scores[labels], "right")
    return float(below.mean() / 2 / len(good))


def test_a_checkpoint_is_judged_image_by_image_and_pixel_by_pixel(data: Path, checkpoint: Path) -> None:
    result = evaluate.evaluate(checkpoint, data)
    loaded = load_checkpoint(checkpoint)
    detector = Detector(loaded.model, loaded.maxima).eval()
    maps, masks = [], []
    for path in sorted((data / "test").rglob("*.png")):
        frame = torch.from_numpy(resize(read_image(path), SIZE))[None]
        with torch.inference_mode():
            maps.append(detector(frame)[0][0].numpy())
        mask = data / "ground_truth" / path.parent.name / f"{path.stem}_mask.png"
        full = np.asarray(Image.open(mask)) if mask.exists() else np.zeros((64, 64), np.uint8)
        rows, columns = ((np.arange(side) + 0.5) * 64 / side for side in SIZE)  # the nearest source pixel
        masks.append(full[np.ix_(rows.astype(int), columns.astype(int))] > 127)
    anomalous = np.array([mask.any() for mask in masks])
    assert (result.images, result.anomalous) == (len(maps), anomalous.sum())
    # One frame at a time here, eight there: scores differ by rounding, which may swap pairs that all but tie.
    assert result.image_auroc == pytest.approx(naive_auroc(np.array([m.max() for m in maps]), anomalous), abs=1e-3)
    assert result.pixel_auroc == pytest.approx(naive_auroc(np.stack(maps), np.stack(masks)), abs=1e-3)


def test_figures_of_models_of_the_same_name_stand_side_by_side(
    data: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / checkpoint.name
    other.write_bytes(checkpoint.read_bytes())
    report = tmp_path / "figures.json"
    assert run_command(evaluate.main, [str(checkpoint), str(other), "--data", str(data), "--json", str(report)]) == 0
    figures = json.loads(report.read_text())
    assert list(figures) == [str(checkpoint), str(other)]
    assert figures[str(checkpoint)] == figures[str(other)]
    assert len(capsys.readouterr().out.splitlines()) == 2


def refusal(model: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert run_command(evaluate.main, [str(model), "--data", str(data)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len([line for line in lines if line.startswith("error: ")]) == 1
    return lines[-1]


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 40), (90, 90, 90)).save(path)
    return path


def test_folders_without_both_classes_are_refused(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "no folder" in refusal(checkpoint, tmp_path / "none", capsys)
    picture(tmp_path / "plain/0.png")
    assert "labelled images in test/good" in refusal(checkpoint, tmp_path / "plain", capsys)
    picture(tmp_path / "good/test/good/0.png")
    assert "found only good ones" in refusal(checkpoint, tmp_path / "good", capsys)
    picture(tmp_path / "bad/test/cut/0.png")
    assert "found only anomalous ones" in refusal(checkpoint, tmp_path / "bad", capsys)


def test_missing_masks_leave_the_image_figure(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture(tmp_path / "test/good/0.png")
    picture(tmp_path / "test/cut/0.png")
    assert run_command(evaluate.main, [str(checkpoint), "--data", str(tmp_path)]) == 0
    assert "image AUROC 0.5000, pixel AUROC no masks (1 anomalous of 2 images)" in capsys.readouterr().out


def test_a_broken_mask_or_a_missing_model_is_named(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture(tmp_path / "test/good/0.png")
    picture(tmp_path / "test/cut/0.png")
    mask = picture(tmp_path / "ground_truth/cut/0_mask.png")
    mask.write_bytes(mask.read_bytes()[:50])
    assert "0_mask.png must be a whole image" in refusal(checkpoint, tmp_path, capsys)
    for name in ("none.pt", "none.onnx", "none.txt"):
        assert name in refusal(tmp_path / name, tmp_path, capsys)
