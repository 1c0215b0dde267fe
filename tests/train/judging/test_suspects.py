"""Bad images among those that were trained on are found, named and shown; clean sets name none."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from runtime.common.errors import run_command
from train import fit
from train.judging.fit_report import Standing, describe_images
from train.synthetic import write_dataset

QUICK = ["--weights", "random", "--taps", "layer1,layer2", "--size", "64", "--blocks", "2", "--schedule", "fast"]
QUICK += ["--meta-epochs", "3", "--batch", "8", "--accept-poor"]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cables")
    write_dataset(root, train=38, test_good=0, per_defect=0, size=64)
    return root / "train/good"


def said(folder: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Train on `folder`; return the lines that were said."""
    assert run_command(fit.main, ["--data", str(folder), "--out", str(folder.parent / "cable.pt"), *QUICK]) == 0
    return capsys.readouterr().err.splitlines()


def test_bad_images_among_the_good_are_named_and_shown(
    good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "mixed"
    shutil.copytree(good, folder)
    for name in ("007.png", "021.png"):
        picture = np.array(Image.open(folder / name))
        picture[10:40, 20:44] = [[[255, 0, 90]]]
        Image.fromarray(picture).save(folder / name)
    (folder / "notes.txt").write_text("no image")
    lines = said(folder, capsys)
    line = next(line for line in lines if "stand out" in line)
    assert line.startswith("look before you trust it: ") and {"007.png", "021.png"} <= set(
        line.replace(",", "").split()
    )
    assert any("skipped: 1 files that are no images" in line for line in lines)
    with Image.open(tmp_path / "cable.suspects.jpg") as sheet:
        assert sheet.format == "JPEG" and sheet.width > 4 * 320


def test_a_training_ends_with_what_a_user_must_know(
    good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "clean"
    shutil.copytree(good, folder)
    lines = said(folder, capsys)
    last = lines[lines.index(next(line for line in lines if line.startswith("pass 3/3"))) + 1 :]
    assert len(last) <= 5  # and the two of stdout
    assert last[0] == "38 good images: 34 trained, 4 chose the pass, the same ones chose the threshold; none skipped"
    assert last[1].startswith("best pass of 3: layer1 ")
    assert "a normal distribution's" in last[2]
    assert "stands out" in last[3] or "stand out" in last[3]


def test_a_standing_says_where_the_flow_loses() -> None:
    standing = Standing(("layer1", "layer2"), (3, 0), (1.5, 0.25), (1.0, 0.5), 4, 2)
    assert not standing.poor and standing.lead == pytest.approx(0.125)
    best, likelihood = standing.lines()
    assert best == "best pass of 4: layer1 3, layer2 0; 2 passes went wrong and were taken back"
    assert likelihood.endswith("0.88 nats a dimension, a normal distribution's 0.75; loses at layer2 0.25 < 0.50")
    assert Standing(("layer1",), (3,), (float("nan"),), (1.0,), 4, 0).poor


def test_images_that_chose_the_threshold_alone_are_counted(tmp_path: Path) -> None:
    words = describe_images([tmp_path / "0.png"], 300, 20, 20)
    assert words == "1 good images: 300 trained, 20 chose the pass, 20 chose the threshold; none skipped"
