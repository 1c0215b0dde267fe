"""Training for real on a tiny set: it learns, resumes to the same bits, and ends cleanly when told to."""

import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from export.model.cflow import ModelConfig
from export.model.checkpoint import load_checkpoint
from runtime.common.errors import run_command
from tests.support.paths import ROOT
from train import evaluate, fit
from train.data.open import ImageCache, split_held_out
from train.loop import training
from train.loop.schedule import FAST, VARIATIONS
from train.loop.training import Trainer
from train.synthetic import write_dataset

TINY = [
    *("--encoder", "resnet18", "--weights", "random", "--taps", "layer1", "--size", "64", "--blocks", "2"),
    *("--batch", "4", "--learning-rate", "1e-3", "--sub-epochs", "1", "--held-out", "0.25"),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cables")
    write_dataset(root, train=12, test_good=3, per_defect=1, size=64)
    return root


def arguments(data: Path, out: Path, *more: str) -> list[str]:
    return ["--data", str(data), "--out", str(out), *TINY, *more]


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(path).model.state_dict()


def test_it_learns_and_leaves_the_encoder_alone(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit.main(arguments(data, tmp_path / "cable.pt", "--meta-epochs", "4"))
    checkpoint = load_checkpoint(tmp_path / "cable.pt")
    losses = [entry["loss"] for entry in checkpoint.history]
    logps = [entry["held_out_logp"] for entry in checkpoint.history]
    assert losses == sorted(losses, reverse=True)
    assert logps == sorted(logps)
    images = fit.ImageCache(split_held_out(fit.open_dataset(data).train, 0.25, 0)[0], (64, 64))
    untrained, _ = fit.build_model(checkpoint.model.config, "random", images)
    encoder = untrained.encoder.state_dict()
    assert all(torch.equal(value, encoder[key]) for key, value in checkpoint.model.encoder.state_dict().items())
    assert checkpoint.data_origin == "train.synthetic"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cable.pt", "cable.suspects.jpg"]
    assert "threshold" in capsys.readouterr().out
    evaluate.main([str(tmp_path / "cable.pt"), "--data", str(data), "--json", str(tmp_path / "figures.json")])
    assert "image AUROC" in capsys.readouterr().out


def test_a_pass_takes_as_many_positions_of_every_tap_as_it_is_told(data: Path) -> None:
    trainer, _ = trainer_of(data, positions=48, fiber_batch=16)  # grids of 16 x 16 and 8 x 8
    trainer.train_pass()
    images = len(trainer.images)
    assert [tap.steps for tap in trainer.taps] == [images * 48 // 16] * 2
    every, _ = trainer_of(data, positions=0, fiber_batch=16)
    every.train_pass()
    assert [tap.steps for tap in every.taps] == [images * 256 // 16, images * 64 // 16]


@pytest.mark.slow
@pytest.mark.parametrize(
    "more", [(), ("--schedule", "fast", "--taps", "layer1,layer2", "--decoder", "slimmest", "--accept-poor")], ids=len
)
def test_a_killed_run_resumes_to_the_same_bits(data: Path, tmp_path: Path, more: tuple[str, ...]) -> None:
    whole, killed = tmp_path / "whole.pt", tmp_path / "killed.pt"
    more = ("--meta-epochs", "3", *more)
    fit.main(arguments(data, whole, *more))
    state = tmp_path / "killed.training.pt"
    process = subprocess.Popen([sys.executable, "-m", "train.fit", *arguments(data, killed, *more)], cwd=ROOT)
    while process.poll() is None and not state.exists():
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not killed.exists()
    fit.main(arguments(data, killed, *more, "--resume"))
    expected = weights(whole)
    assert all(torch.equal(value, expected[key]) for key, value in weights(killed).items())
    assert torch.equal(load_checkpoint(whole).constants, load_checkpoint(killed).constants)


def trainer_of(data: Path, **changes: object) -> tuple[Trainer, ImageCache]:
    train, held_out = split_held_out(fit.open_dataset(data).train, 0.25, 0)
    config = ModelConfig("resnet18", ("layer1", "layer2"), (64, 64), coupling_blocks=1)
    images = ImageCache(train, config.input_size)
    model, _ = fit.build_model(config, "random", images)
    recipe = replace(FAST, batch=4, meta_epochs=2, **changes)
    return Trainer(model, images, recipe), ImageCache(held_out, config.input_size)


def test_the_pass_that_held_out_images_like_best_is_what_remains(data: Path, tmp_path: Path) -> None:
    trainer, held_out = trainer_of(data)
    trainer.end_pass(trainer.train_pass(), held_out)
    best = [tap.flow.parameters.clone() for tap in trainer.taps]
    for tap in trainer.taps:
        tap.flow.parameters.add_(1.0)
    trainer.end_pass(0.0, held_out)
    assert trainer.history[1]["held_out_logp"] < trainer.history[0]["held_out_logp"]
    trainer.run(tmp_path / "state.pt", held_out, {})  # nothing left to train
    assert all(torch.equal(tap.flow.parameters, kept) for tap, kept in zip(trainer.taps, best, strict=True))


def test_a_tap_whose_pass_strayed_goes_back_and_no_other(data: Path) -> None:
    trainer, held_out = trainer_of(data)
    trainer.end_pass(trainer.train_pass(), held_out)
    assert len(trainer.losses) == 2 and trainer.history[0]["loss"] == pytest.approx(sum(trainer.losses) / 2)
    before = [kept.weights.clone() for kept in trainer.kept]
    for tap in trainer.taps:  # as a pass that nearly came back leaves them: hardly worse
        tap.flow.parameters.add_(1e-3 * torch.randn_like(tap.flow.parameters))
        tap.flow.parameters[-1] += 0.2
    trainer.losses = [17.2, 0.0]
    words = trainer.end_pass(8.6, held_out)
    assert trainer.history[1]["held_out_logp"] < trainer.history[0]["held_out_logp"]
    assert "layer1 fell" in words and "layer2" not in words
    assert torch.equal(trainer.taps[0].flow.parameters, before[0])
    assert not torch.equal(trainer.taps[1].flow.parameters, before[1])


def test_kept_features_train_as_computed_ones_and_varied_images_have_none(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, _ = trainer_of(data)
    kept.train_pass()
    assert kept._kept_features is not None
    monkeypatch.setattr(training, "SHARE_OF_MEMORY", 10**15)  # a machine that holds nothing
    computed, _ = trainer_of(data)
    computed.train_pass()
    assert computed._kept_features is None
    for ours, theirs in zip(kept.taps, computed.taps, strict=True):
        # batches of 8 against 4 in the encoder; Adam divides by the gradient's own size, which magnifies rounding
        torch.testing.assert_close(ours.flow.parameters, theirs.flow.parameters, rtol=1e-3, atol=1e-3)
    monkeypatch.undo()
    for name in VARIATIONS:
        assert trainer_of(data, **{name: 0.5})[0]._kept_features is None


def test_taps_trained_side_by_side_are_those_trained_one_after_another(data: Path) -> None:
    losses, threads = [], torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            losses.append(trainer_of(data)[0].train_pass())
    finally:
        torch.set_num_threads(threads)
    # the encoder may sum in another order with another number of threads
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


@pytest.mark.slow
def test_ctrl_c_ends_with_130_and_nothing_half_written(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "cable.pt"
    out.write_text("an earlier checkpoint")
    command = [sys.executable, "-m", "train.fit", *arguments(data, out, "--meta-epochs", "500")]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not (tmp_path / "cable.training.pt").exists():
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate()
    assert process.returncode == 130
    assert "Traceback" not in error
    assert out.read_text() == "an earlier checkpoint"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cable.pt", "cable.training.pt"]
    torch.load(tmp_path / "cable.training.pt", weights_only=True)


@pytest.mark.parametrize(
    ("more", "found"),
    [
        (["--size", "16"], "'16'"),
        (["--size", "a x b"], "a x b"),
        (["--taps", "layer7"], "layer7"),
        (["--blocks", "0"], "--blocks"),
        (["--fiber-batch", "0"], "--fiber-batch"),
        (["--weights", "none.pth"], "none.pth"),
        (["--resume"], "cable.training.pt"),
        (["--learning-rate", "1e30", "--meta-epochs", "2"], "passes that all went wrong"),
    ],
)
def test_bad_input_is_one_line(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], found: str
) -> None:
    assert run_command(fit.main, arguments(data, tmp_path / "cable.pt", *more)) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert found in errors[0]
    assert not (tmp_path / "cable.pt").exists()
