"""The training command: what it refuses before it trains, and what belongs to a run that goes on."""

import argparse
import itertools
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from export.images.labelled import GOOD, LabelledImage
from export.model.cflow import DetectorModule, ModelConfig
from export.model.checkpoint import load_checkpoint, read_tensors
from export.to_onnx import sidecar_of
from runtime import infer
from runtime.common.errors import UserError, run_command
from runtime.engines.sidecar import Sidecar
from runtime.images.preprocess import ReadOptions, resize
from runtime.sources.arguments import sources_from
from tests.support.paths import ROOT
from tests.support.small_disk import small_disk
from train import fit
from train.data.open import open_dataset, split_held_out
from train.judging.judged_set import judge
from train.loop.schedule import Recipe
from train.loop.training import STATE_FORMAT
from train.synthetic import write_dataset

PATIENCE_S = 120
CONFIG = ModelConfig("resnet18", ("layer1",), (32, 48), coupling_blocks=1, score="place_deviation")
RECIPE = Recipe(meta_epochs=2, sub_epochs=1, batch=4, learning_rate=1e-3)
TINY = ["--encoder", "resnet18", "--taps", "layer1", "--size", "32x48", "--blocks", "1", "--batch", "4"]
SHORT = ["--meta-epochs", "2", "--sub-epochs", "1", "--learning-rate", "1e-3", "--weights", "random", "--accept-poor"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cables")
    write_dataset(root, train=6, test_good=1, per_defect=0, size=64)
    return root


def interrupt_after_the_first_pass(patch: pytest.MonkeyPatch) -> None:
    save = fit.Trainer._save

    def save_then_stop(self: fit.Trainer, *arguments: object) -> None:
        save(self, *arguments)
        raise KeyboardInterrupt

    patch.setattr(fit.Trainer, "_save", save_then_stop)


@pytest.fixture
def interrupted(data: Path, tmp_path: Path) -> list[str]:
    """Return the arguments of a run that Ctrl-C ended after its first pass."""
    arguments = ["--data", str(data), "--out", str(tmp_path / "cable.pt"), *TINY, *SHORT]
    with pytest.MonkeyPatch.context() as patch:
        interrupt_after_the_first_pass(patch)
        assert run_command(fit.main, arguments) == 130
    assert [path.name for path in tmp_path.iterdir()] == ["cable.training.pt"]
    return arguments


def test_an_interrupted_run_goes_on_to_the_same_bits(interrupted: list[str], data: Path, tmp_path: Path) -> None:
    assert run_command(fit.main, [*interrupted, "--resume"]) == 0
    # the training state has done its duty
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cable.pt", "cable.suspects.jpg"]
    resumed = load_checkpoint(tmp_path / "cable.pt")
    whole = fit.fit(open_dataset(data), CONFIG, RECIPE, "random", tmp_path / "whole.pt")
    expected = whole.model.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in resumed.model.state_dict().items())
    assert torch.equal(resumed.constants, whole.constants)
    assert (resumed.thresholds, resumed.history) == (whole.thresholds, whole.history)


def test_a_run_goes_on_to_the_same_bits_from_a_pass_that_went_wrong(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--data", str(data), *TINY, *SHORT, "--learning-rate", "100", "--meta-epochs", "3", "--out"]
    with pytest.MonkeyPatch.context() as patch:
        interrupt_after_the_first_pass(patch)
        assert run_command(fit.main, [*arguments, str(tmp_path / "resumed.pt")]) == 130
    assert "pass 1 went wrong: layer1 fell from" in capsys.readouterr().err
    for name, more in (("resumed.pt", ["--resume"]), ("whole.pt", [])):
        assert run_command(fit.main, [*arguments, str(tmp_path / name), *more]) == 0
    resumed, whole = (load_checkpoint(tmp_path / name) for name in ("resumed.pt", "whole.pt"))
    assert [entry["taps_led_astray"] for entry in whole.history] == [1, 1, 0]
    assert whole.history[1]["loss"] > 1000  # of a pass that strayed and came back: -2.22 to -2.26
    expected = whole.model.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in resumed.model.state_dict().items())
    assert resumed.history == whole.history


def config_of(data: Path, *options: str) -> ModelConfig:
    """The configuration that these options ask for, of three taps where they name none."""
    parser = argparse.ArgumentParser()
    fit.add_size_argument(parser)
    fit.add_training_arguments(parser)
    words = ["--taps", "layer1,layer2,layer3", "--size", "64", *options]
    return fit.config_from(parser.parse_args(words), open_dataset(data))


def test_taps_are_pooled_except_by_the_papers_schedule(data: Path) -> None:
    def pooled(*options: str) -> tuple[str, ...]:
        return config_of(data, "--taps", "layer1,layer2", *options).pooled

    assert pooled("--schedule", "fast") == pooled("--schedule", "fast", "--decoder", "paper") == ("layer1", "layer2")
    assert pooled("--schedule", "paper") == pooled("--schedule", "fast", "--pool", "none") == ()
    assert pooled("--schedule", "paper", "--pool", "layer2, layer1") == ("layer1", "layer2")
    with pytest.raises(UserError, match="--pool must name taps among layer1, layer2, or be none; found layer3"):
        pooled("--pool", "layer3")


def test_a_slim_decoder_judges_every_second_row_and_column_of_pooled_taps(data: Path) -> None:
    def of(*options: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        config = config_of(data, *options)
        return config.pooled, config.halved

    taps = ("layer1", "layer2", "layer3")
    assert of("--schedule", "fast") == (taps, ("layer1",))
    assert of("--schedule", "fast", "--decoder", "slimmest") == (taps, ("layer1",))
    assert of("--schedule", "fast", "--decoder", "slimmest", "--pool", "layer2") == (("layer2",), ())
    assert of("--schedule", "fast", "--decoder", "paper") == (taps, ())
    assert of("--schedule", "paper") == of("--schedule", "paper", "--decoder", "slim") == ((), ())
    assert of("--schedule", "paper", "--pool", "layer1", "--decoder", "slim") == (("layer1",), ("layer1",))


def test_the_slimmest_decoder_factors_half_of_the_coarser_taps_channels_out(data: Path) -> None:
    def of(*options: str) -> tuple[tuple[str, ...], tuple[int, ...]]:
        config = config_of(data, *options)
        return config.factored, config.hidden_units

    slimmest = ("--decoder", "slimmest")
    for schedule in ("fast", "paper"):
        assert of("--schedule", schedule) == ((), ())
        assert of("--schedule", schedule, *slimmest) == (("layer2", "layer3"), ())
    # half of the usual: 320 and, where channels are factored out, twice the channels, 256 and 512
    assert of("--schedule", "fast", *slimmest, "--hidden", "0.5") == (("layer2", "layer3"), (160, 128, 256))


def test_hidden_units_are_a_share_of_the_papers(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def units(*options: str) -> tuple[int, ...]:
        return config_of(data, *options).hidden_units

    assert units() == units("--hidden", "1") == ()
    assert units("--hidden", "0.5") == (160, 192, 256)  # of 320, 384 and 512
    assert units("--hidden", "0.001", "--unconditional") == (16, 16, 16)
    for share in ("0", "1.5", "nan"):
        assert run_command(fit.main, ["--data", str(data), "--out", "cable.pt", "--hidden", share]) == 2
        assert f"--hidden must be above 0 and at most 1; found {share}" in capsys.readouterr().err


def test_a_flow_below_a_normal_distribution_is_said_and_ends_with_1(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "cable.pt"
    arguments = ["--data", str(data), "--out", str(out), *TINY, *SHORT, "--learning-rate", "1e-6"]
    assert run_command(fit.main, [word for word in arguments if word != "--accept-poor"]) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("this detector is not to be trusted: ") and "--accept-poor" in line
    checkpoint = load_checkpoint(out)  # written all the same
    assert fit.lead_of(checkpoint) < 0
    assert run_command(fit.main, arguments) == 0
    assert "not to be trusted" in capsys.readouterr().err
    fast = [*arguments, "--schedule", "fast", "--taps", "layer1,layer2", "--blocks", "4", "--learning-rate", "1e-3"]
    assert run_command(fit.main, [word for word in fast if word != "--accept-poor"]) == 0
    assert fit.lead_of(load_checkpoint(out)) > 0


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (["--seed", "1"], "another config, recipe, encoder_weights"),
        (["--blocks", "2"], "another config"),
        (["--batch", "3"], "another recipe"),
    ],
)
def test_another_run_cannot_be_resumed(
    interrupted: list[str], change: list[str], found: str, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert run_command(fit.main, [*interrupted, *change, "--resume"]) == 2
    assert f"found {found}; drop --resume" in capsys.readouterr().err


def test_other_data_or_weights_cannot_be_resumed(
    interrupted: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    write_dataset(other, train=6, test_good=0, per_defect=0, size=64, seed=1)
    assert run_command(fit.main, [*interrupted, "--data", str(other), "--resume"]) == 2
    assert "found another data_sha256;" in capsys.readouterr().err
    model, _ = fit.build_model(replace(CONFIG, seed=9), "random", fit.ImageCache(open_dataset(other).train, (32, 48)))
    torch.save(model.encoder.state_dict(), tmp_path / "encoder.pth")
    assert run_command(fit.main, [*interrupted, "--weights", str(tmp_path / "encoder.pth"), "--resume"]) == 2
    assert "found another encoder_weights;" in capsys.readouterr().err


def test_the_checkpoint_says_where_it_comes_from(data: Path, tmp_path: Path) -> None:
    fit.fit(open_dataset(data), CONFIG, RECIPE, "random", tmp_path / "cable.pt")
    checkpoint = load_checkpoint(tmp_path / "cable.pt")
    assert checkpoint.model.config == CONFIG
    assert checkpoint.data_sha256 == open_dataset(data).sha256()
    assert (checkpoint.data_origin, checkpoint.encoder_weights) == ("train.synthetic", "random, seed 0")
    assert {"python", "torch", "torchvision", "FrEIA"} <= set(checkpoint.versions)
    assert [entry["pass"] for entry in checkpoint.history] == [1, 2]
    assert 0 <= checkpoint.thresholds["good_quantile"].value <= 1  # one tap: S lies in [0, 1]
    held_out = split_held_out(open_dataset(data).train, RECIPE.held_out, RECIPE.seed)[1]
    assert checkpoint.population is not None and checkpoint.population.count == len(held_out)


def test_random_weights_take_any_number_of_images(data: Path) -> None:
    # 9 images at this size leave layer4 one position each: a last batch of a single image would have no variance.
    config = ModelConfig("resnet18", ("layer4",), (32, 32), coupling_blocks=1)
    paths = open_dataset(data).train
    model, _ = fit.build_model(config, "random", fit.ImageCache([*paths, *paths[:3]], (32, 32)))
    assert all(torch.isfinite(value).all() for value in model.encoder.state_dict().values())


def picture(path: Path, value: int = 100) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((40, 40, 3), value, np.uint8)).save(path)


def refusal(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert run_command(fit.main, arguments) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


def test_data_that_cannot_be_trained_on_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--out", str(tmp_path / "cable.pt"), *TINY, *SHORT, "--data"]
    assert "no folder" in refusal([*arguments, str(tmp_path / "none")], capsys)
    (tmp_path / "empty").mkdir()
    assert "must hold good images" in refusal([*arguments, str(tmp_path / "empty")], capsys)
    picture(tmp_path / "one/0.png")
    assert "at least 2 good images" in refusal([*arguments, str(tmp_path / "one")], capsys)
    picture(tmp_path / "test_only/test/good/0.png")
    assert "at least 2 good images" in refusal([*arguments, str(tmp_path / "test_only")], capsys)
    picture(tmp_path / "misnamed/train/fine/0.png")
    assert "found fine" in refusal([*arguments, str(tmp_path / "misnamed")], capsys)
    for index in range(3):
        picture(tmp_path / f"broken/{index}.png", index)
    (tmp_path / "broken/1.png").write_bytes((tmp_path / "broken/1.png").read_bytes()[:30])
    assert "1.png must be a whole image" in refusal([*arguments, str(tmp_path / "broken")], capsys)
    assert not list(tmp_path.glob("*.pt"))


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (["--taps", "layer1,features6"], "features6"),
        (["--size", "31"], "'31'"),
        (["--size", "64x64x64"], "'64x64x64'"),
        (["--learning-rate", "-1"], "--learning-rate"),
        (["--false-alarm-rate", "2"], "--false-alarm-rate"),
        (["--held-out", "0"], "--held-out"),
        (["--seed", "-1"], "--seed"),
    ],
)
def test_options_are_checked_before_anything_runs(
    more: list[str], named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--data", str(tmp_path / "none"), "--out", str(tmp_path / "cable.pt"), *TINY, *SHORT, *more]
    assert named in refusal(arguments, capsys)  # the missing data folder is not yet looked for


def test_an_output_that_is_a_folder_is_refused(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "must be a file; found the folder" in refusal(
        ["--data", str(data), "--out", str(tmp_path), *TINY, *SHORT], capsys
    )


def test_taps_may_be_listed_with_spaces_and_in_any_order(data: Path, tmp_path: Path) -> None:
    arguments = ["--data", str(data), "--out", str(tmp_path / "cable.pt"), *TINY, *SHORT, "--meta-epochs", "1"]
    assert run_command(fit.main, [*arguments, "--taps", "layer2, layer1,"]) == 0
    assert load_checkpoint(tmp_path / "cable.pt").model.config.taps == ("layer1", "layer2")


def process(data: Path, out: Path, *more: str) -> "subprocess.Popen[str]":
    """Start a training of many passes."""
    longer = [*TINY, *SHORT, "--meta-epochs", "20000"]
    command = [sys.executable, "-m", "train.fit", "--data", str(data), "--out", str(out), *longer, *more]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_passes(run: "subprocess.Popen[str]", count: int = 2) -> None:
    """Read until `count` passes were told of: of the one before the last, the state is written."""
    assert run.stderr is not None
    told = (line for line in run.stderr if line.startswith("pass "))
    assert len(list(itertools.islice(told, count))) == count


def test_signals_and_kills_leave_a_run_that_goes_on(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "cable.pt"
    resume: list[str] = []
    for number, status, word in ((signal.SIGTERM, 143, "terminated"), (signal.SIGINT, 130, "interrupted")):
        run = process(data, out, *resume)
        wait_for_passes(run)
        run.send_signal(number)
        error = run.communicate(timeout=PATIENCE_S)[1]
        assert run.returncode == status, error
        assert error.splitlines()[-1] == f"{word}; what was written before is whole" and "Traceback" not in error
        assert [path.name for path in tmp_path.iterdir()] == ["cable.training.pt"]
        resume = ["--resume"]
    for _ in range(2):
        run = process(data, out, *resume)
        wait_for_passes(run)
        second = process(data, out, *resume)
        error = second.communicate(timeout=PATIENCE_S)[1]
        assert second.returncode == 2 and "must have one writer at a time" in error
        run.kill()
        run.communicate()
        read_tensors(tmp_path / "cable.training.pt", STATE_FORMAT)
    (tmp_path / ".cable.training.pt.part-abcdefgh.pt").write_bytes(b"of a killed run")
    run = process(data, out, *resume)
    wait_for_passes(run)  # it goes on
    assert not (tmp_path / ".cable.training.pt.part-abcdefgh.pt").exists()
    run.terminate()
    run.communicate()


def test_a_full_disk_ends_training_in_one_line(data: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        run = process(data, disk / "cable.pt")
        error = run.communicate(timeout=PATIENCE_S)[1]
        assert run.returncode == 2 and "Traceback" not in error
        assert error.splitlines()[-1].startswith("error: the disk is full")
        assert list(disk.iterdir()) == []


def test_an_output_that_no_command_would_take_is_refused_before_training(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("cable", "cable.pth", "cable.onnx"):
        arguments = ["--data", str(tmp_path / "none"), "--out", str(tmp_path / name), *TINY, *SHORT]
        assert "--out must end in .pt" in refusal(arguments, capsys)
        with pytest.raises(UserError, match=r"must end in \.pt"):
            fit.fit(open_dataset(data), CONFIG, RECIPE, "random", tmp_path / name)


def test_how_many_images_are_used_is_said(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (shutil.copytree(data, tmp_path / "cables") / "train/good/more.gif").touch()
    arguments = ["--data", str(tmp_path / "cables"), "--out", str(tmp_path / "cable.pt"), *TINY, *SHORT]
    assert run_command(fit.main, [*arguments, "--meta-epochs", "1"]) == 0
    said = capsys.readouterr().err
    assert f"6 images used from {tmp_path / 'cables/train/good'}; ignored there: 1 files that are no images" in said


def test_names_that_are_not_utf_8_are_trained_on(data: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(data, tmp_path / "cables")
    (copied / "train/good/000.png").rename(copied / "train/good" / os.fsdecode(b"K\xf6rper.png"))
    shutil.copytree(copied / "train/good", copied / "test/good", dirs_exist_ok=True)
    arguments = ["--data", str(copied), "--out", str(tmp_path / "cable.pt"), *TINY, *SHORT, "--meta-epochs", "1"]
    assert run_command(fit.main, arguments) == 0


def test_white_is_the_same_in_training_evaluation_and_on_the_line(tmp_path: Path) -> None:
    rng, folder = np.random.default_rng(0), tmp_path / "deep"
    folder.mkdir()
    for index in range(4):
        Image.fromarray(rng.integers(0, 4096, (40, 56)).astype(np.uint16)).save(folder / f"{index}.png")
    arguments = ["--data", str(folder), "--out", str(tmp_path / "deep.pt"), *TINY, *SHORT, "--white", "4095"]
    assert run_command(fit.main, [*arguments, "--meta-epochs", "1"]) == 0
    checkpoint = load_checkpoint(tmp_path / "deep.pt")
    sidecar = sidecar_of(checkpoint, tmp_path / "deep.pt")
    assert (checkpoint.model.config.white, sidecar.white) == (4095, 4095)
    assert Sidecar.from_json(sidecar.to_json()).white == 4095
    older = {key: value for key, value in sidecar.to_json().items() if key != "white"}
    assert Sidecar.from_json(older).white == 65535  # a file of an earlier release says nothing
    with pytest.raises(UserError, match="white must be a whole number from 255 to 65535"):
        Sidecar.from_json({**older, "white": "bright"})
    images = [LabelledImage(path, GOOD, None) for path in sorted(folder.iterdir())]
    judged = judge(tmp_path / "deep.pt", images)
    frames = fit.ImageCache([image.path for image in images], (32, 48), read=ReadOptions(white=4095)).batch(range(4))
    with torch.inference_mode():
        _, scores = DetectorModule(checkpoint.model, checkpoint.constants)(torch.from_numpy(frames))
    np.testing.assert_allclose(judged.scores, scores.numpy(), atol=1e-6)  # the same batch, the same arithmetic
    args = infer.build_parser().parse_args(["--engine", "deep.onnx", "--source", str(folder)])
    with sources_from(args, sidecar.white)[0] as source:
        on_the_line = [resize(frame.image, (32, 48)) for frame in source]
    np.testing.assert_array_equal(np.stack(on_the_line), frames)


def test_the_threshold_has_images_of_its_own_where_there_are_enough(tmp_path: Path) -> None:
    for index in range(80):
        picture(tmp_path / f"good/{index}.png", 60 + index)
    apart = fit.fit(open_dataset(tmp_path / "good"), CONFIG, replace(RECIPE, held_out=0.5), "random", tmp_path / "a.pt")
    few = fit.fit(open_dataset(tmp_path / "good"), CONFIG, replace(RECIPE, held_out=0.25), "random", tmp_path / "b.pt")
    threshold = apart.thresholds["good_quantile"]
    assert threshold.method.startswith("false-alarm rate <= 4.76% from 20 held-out good images")
    assert threshold.false_alarm_rate == pytest.approx(1 / 21) and threshold.interval is not None
    threshold = few.thresholds["good_quantile"]
    assert threshold.method.startswith("largest score of 20 held-out good images (1.00% needs 99), which also chose")
    assert "nothing is promised; train.set_threshold --good DIR" in threshold.method
    assert (threshold.false_alarm_rate, threshold.interval) == (None, None)  # no figure that would not hold
