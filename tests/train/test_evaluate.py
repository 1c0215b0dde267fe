"""Evaluation of a checkpoint and an engine on labelled images, and of folders that hold too few of them."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from export.model.cflow import DetectorModule
from export.model.checkpoint import load_checkpoint
from runtime.common.errors import run_command
from runtime.engines.sidecar import read_sidecar
from runtime.images.preprocess import read_image, resize
from tests.support.paths import ROOT
from tests.support.tiny_checkpoint import write_tiny_checkpoint
from tests.support.tiny_engine import write_tiny_engine
from train import evaluate
from train.data.open import open_dataset
from train.synthetic import write_dataset

SIZE = (32, 64)  # of 64 x 64: the pixel nearest to a place is never a matter of rounding


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cables")
    write_dataset(root, train=0, test_good=4, per_defect=2, size=64)  # labelled images only, as for a finished model
    return root


@pytest.fixture(scope="module")
def checkpoint(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    good = [image.path for image in open_dataset(data).test if not image.anomalous]
    return write_tiny_checkpoint(tmp_path_factory.mktemp("model") / "cable.pt", good, SIZE)


def naive_auroc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Count the pairs: sorted good scores below each anomalous one, ties half."""
    good = np.sort(scores[~labels])
    below = np.searchsorted(good, scores[labels], "left") + np.searchsorted(good, scores[labels], "right")
    return float(below.mean() / 2 / len(good))


def test_a_checkpoint_is_judged_image_by_image_and_pixel_by_pixel(data: Path, checkpoint: Path) -> None:
    result = evaluate.evaluate(checkpoint, data)
    loaded = load_checkpoint(checkpoint)
    detector = DetectorModule(loaded.model, loaded.constants).eval()
    maps, masks = [], []
    for path in sorted((data / "test").rglob("*.png")):
        frame = torch.from_numpy(resize(read_image(path), SIZE))[None]
        with torch.inference_mode():
            maps.append(detector(frame)[0][0].numpy())
        mask = data / "ground_truth" / path.parent.name / f"{path.stem}_mask.png"
        full = np.asarray(Image.open(mask)) if mask.exists() else np.zeros((64, 64), np.uint8)
        rows, columns = (np.arange(64) * side // 64 for side in SIZE)  # where each pixel goes: a defect is never lost
        small = np.zeros(SIZE, bool)
        np.logical_or.at(small, np.ix_(rows, columns), full > 127)
        masks.append(small)
    anomalous = np.array([mask.any() for mask in masks])
    assert (result.images, result.anomalous) == (len(maps), anomalous.sum())
    # One frame at a time here, eight there: scores differ by rounding, which may swap pairs that all but tie.
    assert result.image_auroc == pytest.approx(naive_auroc(np.array([m.max() for m in maps]), anomalous), abs=1e-3)
    assert result.pixel_auroc == pytest.approx(naive_auroc(np.stack(maps), np.stack(masks)), abs=1e-3)


def run(*arguments: object) -> None:
    assert run_command(evaluate.main, [str(argument) for argument in arguments]) == 0


def test_figures_of_models_of_the_same_name_stand_side_by_side(
    data: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / checkpoint.name
    other.write_bytes(checkpoint.read_bytes())
    report = tmp_path / "figures.json"
    run(checkpoint, other, "--data", data, "--json", report)
    figures = json.loads(report.read_text())
    assert list(figures) == [str(checkpoint), str(other)]
    assert figures[str(checkpoint)] == figures[str(other)]
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert names == ["model", str(checkpoint), str(other), str(checkpoint), str(other)]


def test_a_model_that_cannot_judge_the_set_takes_no_figures_from_the_others(
    checkpoint: Path, graded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = write_tiny_engine(tmp_path, size=SIZE)
    report = tmp_path / "figures.json"
    words = [str(tmp_path / "none.onnx"), str(engine), "--data", str(graded), "--json", str(report)]
    assert run_command(evaluate.main, words) == 2
    said = capsys.readouterr()
    assert "the others go on" in said.err and "1 that cannot; " in said.err.splitlines()[-1]
    assert list(json.loads(report.read_text())) == [str(engine)] and str(engine) in said.out


@pytest.mark.parametrize("option", ["--json", "--report"])
def test_where_nothing_can_be_written_is_said_before_the_work(
    graded: Path, tmp_path: Path, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    for place, found in ((tmp_path, "found the folder"), (tmp_path / "file/report.html", "found the file")):
        words = [str(tmp_path / "none.onnx"), "--data", str(graded), option, str(place)]
        assert run_command(evaluate.main, words) == 2
        said = capsys.readouterr().err
        assert found in said and said.count("\n") == 1


@pytest.fixture(scope="module")
def graded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder named after a class, judged by brightness: a good image too bright, a defect too dark, others right."""
    root = tmp_path_factory.mktemp("data") / "mvtec_screw"
    levels = {"good": (40, 60, 100), "cut": (50, 200, 220)}  # grey; the engine's threshold of 1.0 is 85
    for defect, grey in levels.items():
        for level in grey:
            picture(root / f"test/{defect}/{level}.png", level)
            if defect != "good":
                mask = np.zeros((40, 40), np.uint8)
                mask[:20] = 255
                (root / "ground_truth/cut").mkdir(parents=True, exist_ok=True)
                Image.fromarray(mask).save(root / f"ground_truth/cut/{level}_mask.png")
    return root


def test_an_engine_is_evaluated_at_its_own_threshold_beside_the_paper(
    graded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = write_tiny_engine(tmp_path, size=SIZE)
    run(engine, "--data", graded, "--json", tmp_path / "figures.json")
    figures = json.loads((tmp_path / "figures.json").read_text())[str(engine)]
    # Pairs in order: 50 beats 40 alone of the good images, 200 and 220 beat all three: 7 of 9.
    assert figures["image_auroc"] == pytest.approx(7 / 9)
    # Best cut between 100 and 200: 2 of 3 found, no false alarm. A map is constant, so a cut takes whole images.
    assert (figures["image_f1"], figures["image_f1_threshold"]) == pytest.approx((0.8, 3 * 150 / 255), rel=1e-6)
    assert (figures["false_alarms"], figures["misses"], figures["images"], figures["anomalous"]) == (1, 1, 6, 3)
    assert figures["threshold"] == {
        "name": "good_quantile", "value": 1.0, "method": "set by hand for tests",
        "false_alarm_rate": None, "interval": None, "map_value": None,
    }  # fmt: skip
    # Half of each defect image is marked. Cuts by image: 220, 200: marked and unmarked alike; 100: a good one.
    assert figures["pixel_f1"] == pytest.approx(2 * 2 / (4 + 3))
    assert figures["pixel_auroc"] == pytest.approx(naive_auroc(*constant_maps(graded)))
    # At its own threshold two marked halves and their unmarked ones are called, and a good image.
    assert figures["seg_f1"] == pytest.approx(2 * 2 / (2 * 3 + 3))
    # One defect is darker than good images, two are brighter than all of them.
    assert figures["aupimo"] == pytest.approx(2 / 3) and figures["au_spro"] is None
    assert figures["paper"]["class"] == "screw"
    own = [row for row in figures["paper"]["percent"] if row["system"] == "CFLOW-AD" and row["setting"] == "resnet18"]
    assert [(row["image_auroc"], row["pixel_auroc"]) for row in own] == [(85.94, 98.4)]
    out = capsys.readouterr().out
    assert "at its threshold good_quantile 1.0000: false alarms 1 of 3 good, misses 1 of 3 anomalous" in out
    measured = next(line for line in out.splitlines() if line.startswith("measured"))
    assert measured.split()[1:5] == ["tiny.onnx", "resnet18,", "32x64,", "layer2+layer3+layer4"]
    assert measured.split()[5] == "77.78"
    assert "98.40" in out and "do not follow" not in out


def test_an_engine_is_evaluated_without_torch(graded: Path, tmp_path: Path) -> None:
    """Of a small set most of the time went into its import."""
    engine = write_tiny_engine(tmp_path, name="cable", size=(8, 8))
    program = """
import sys
from train import evaluate
evaluate.main([sys.argv[1], "--data", sys.argv[2], "--save-best-f1"])
print({"torch", "torchvision", "FrEIA", "onnx"} & set(sys.modules))
"""
    command = [sys.executable, "-c", program, str(engine), str(graded)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout.splitlines()[-1] == "set()"


def constant_maps(root: Path) -> tuple[np.ndarray, np.ndarray]:
    paths = sorted((root / "test").rglob("*.png"))
    maps = np.stack([np.full((4, 4), int(path.stem)) for path in paths])
    truth = np.zeros(maps.shape, bool)
    truth[[path.parent.name == "cut" for path in paths], :2] = True
    return maps, truth


def test_the_class_comes_from_the_option_the_folder_or_the_training_data(
    graded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = [image.path for image in open_dataset(graded).test if not image.anomalous]
    model = write_tiny_checkpoint(tmp_path / "tile.pt", good, SIZE, data_origin="tile")
    elsewhere = tmp_path / "line 4"
    elsewhere.symlink_to(graded)  # resolves to the class's folder
    for arguments, title in (
        ([graded, "--paper-class", "zipper"], "zipper:"),
        ([graded], "screw:"),
        ([elsewhere], "screw:"),
        ([graded.parent / "copy"], "tile:"),
    ):
        if not arguments[0].exists():
            shutil.copytree(graded, arguments[0])
        run(model, "--data", *arguments)
        assert title in capsys.readouterr().out.splitlines()
    run(write_tiny_engine(tmp_path, size=SIZE), "--data", graded.parent / "copy")
    assert "Table 3" not in capsys.readouterr().out


def test_best_f1_is_kept_in_each_model_and_decides_nothing(graded: Path, tmp_path: Path) -> None:
    engine = write_tiny_engine(tmp_path, size=SIZE)
    good = [image.path for image in open_dataset(graded).test if not image.anomalous]
    model = write_tiny_checkpoint(tmp_path / "cable.pt", good, SIZE)
    run(engine, model, "--data", graded, "--save-best-f1")
    sidecar, checkpoint = read_sidecar(engine), load_checkpoint(model)
    assert sidecar.thresholds["best_f1"].value == pytest.approx(3 * 150 / 255, rel=1e-6)  # float32
    assert (sidecar.default_threshold, sidecar.threshold.value) == ("good_quantile", 1.0)
    assert checkpoint.thresholds["best_f1"].method.endswith("on 6 labelled images, judged with cable.pt")
    assert checkpoint.default_threshold == "good_quantile"


def test_a_report_for_every_model(graded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = (write_tiny_engine(tmp_path, name, size=SIZE) for name in ("first", "second"))
    run(first, "--data", graded, "--report", tmp_path / "report.html")
    assert "first.onnx on mvtec_screw" in (tmp_path / "report.html").read_text(encoding="utf-8")
    run(first, second, "--data", graded, "--report", tmp_path / "report.html")
    for name in ("first.onnx", "second.onnx"):
        assert f"{name} on mvtec_screw" in (tmp_path / f"report.{name}.html").read_text(encoding="utf-8")
    assert f"wrote {tmp_path / 'report.html'}" in capsys.readouterr().err


def test_models_that_would_write_over_each_other_are_refused(
    graded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = write_tiny_engine(tmp_path, size=SIZE)
    for option in (["--report", str(tmp_path / "report.html")], ["--save-best-f1"]):
        assert run_command(evaluate.main, [str(engine), str(engine), "--data", str(graded), *option]) == 2
        assert "evaluate one at a time" in capsys.readouterr().err


def refusal(model: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert run_command(evaluate.main, [str(model), "--data", str(data)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len([line for line in lines if line.startswith("error: ")]) == 1
    return lines[-1]


def picture(path: Path, level: int = 90) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 40), (level, level, level)).save(path)
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
    run(checkpoint, "--data", tmp_path)
    figures = capsys.readouterr().out.splitlines()[1].split()[1:]
    assert figures[:4] + figures[5:] == ["50.00", "-", "-", "66.67", *["-"] * 6]


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
