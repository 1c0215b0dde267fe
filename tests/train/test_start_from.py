"""Training that begins with an older detector's weights: it is that detector, and begins where that ended."""

import argparse
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from export.model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from runtime.common.errors import run_command
from tests.train.test_fit import interrupt_after_the_first_pass
from train import fit
from train.data.open import ImageCache, open_dataset, split_good, split_held_out
from train.fit_options import DECODERS, config_from
from train.loop.training import Trainer
from train.start_from import config_like, recipe_like
from train.synthetic import write_dataset

TINY = ["--encoder", "resnet18", "--taps", "layer1", "--size", "32x48", "--blocks", "1", "--weights", "random"]
SHORT = ["--batch", "4", "--fiber-batch", "16", "--meta-epochs", "2", "--sub-epochs", "1", "--accept-poor"]
FAST = [
    "--schedule",
    "fast",
    "--seed",
    "3",
    "--light",
    "0.1",
    "--feature-noise",
    "0.15",
    "--white",
    "4095",
    "--held-out",
    "0.2",
    "--false-alarm-rate",
    "0.05",
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cables")
    write_dataset(root, train=10, test_good=0, per_defect=0, size=64)
    return root


@pytest.fixture(scope="module")
def old(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("old") / "old.pt"
    words = ["--data", str(data), "--out", str(path), *TINY, *SHORT, *FAST, "--meta-epochs", "5"]
    assert run_command(fit.main, words) == 0
    return path


def _renewed(data: Path, old: Path, out: Path, *more: str) -> int:
    return run_command(fit.main, ["--data", str(data), "--out", str(out), "--start-from", str(old), *SHORT, *more])


def test_it_begins_where_the_old_detector_ended_and_not_from_scratch(data: Path, old: Path, tmp_path: Path) -> None:
    assert _renewed(data, old, tmp_path / "new.pt", "--schedule", "fast") == 0
    before, after = load_checkpoint(old), load_checkpoint(tmp_path / "new.pt")
    train, selection, _ = split_good(open_dataset(data), 0.2, before.model.config.seed)
    images, kept = (ImageCache(paths, before.model.config.input_size) for paths in (train, selection))
    recipe = fit.recipe_from(_parsed("--schedule", "fast"))

    def first_logp(checkpoint: Checkpoint | None) -> float:
        model = fit.build_model(before.model.config, "random", images)[0] if checkpoint is None else checkpoint.model
        trainer = Trainer(model, images, recipe if checkpoint is None else replace(recipe, standardised_start=False))
        trainer.start(kept)
        return trainer.kept[0].logp

    assert first_logp(load_checkpoint(old)) > first_logp(None) + 0.01
    assert after.history[0]["held_out_logp"] > before.history[0]["held_out_logp"]
    weights, encoder = after.model.state_dict(), before.model.encoder.state_dict()
    assert all(torch.equal(value, weights[f"encoder.{name}"]) for name, value in encoder.items())
    assert after.encoder_weights == before.encoder_weights


def _parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    fit.add_training_arguments(parser)
    fit.add_size_argument(parser)
    return parser.parse_args(words)


def test_what_is_left_out_is_as_the_old_detector_has_it(data: Path, old: Path, tmp_path: Path) -> None:
    assert _renewed(data, old, tmp_path / "new.pt", "--schedule", "fast", "--blocks", "1", "--size", "32x48") == 0
    before, after = load_checkpoint(old), load_checkpoint(tmp_path / "new.pt")
    assert after.model.config == before.model.config and after.model.config.white == 4095
    for name in ("light", "feature_noise"):
        assert after.history[-1][name] == before.history[-1][name] > 0
    recipe = fit.recipe_from(_parsed("--schedule", "fast"))
    like = recipe_like(recipe, before, set())
    assert like == replace(recipe, seed=3, light=0.1, feature_noise=0.15, held_out=0.2, false_alarm_rate=0.05)
    assert recipe_like(recipe, before, {"light", "seed", "held_out"}) == replace(
        recipe, feature_noise=0.15, false_alarm_rate=0.05
    )


def test_pixels_are_normalised_as_the_old_weights_know_them(data: Path, old: Path, tmp_path: Path) -> None:
    stc = load_checkpoint(old)
    config = replace(stc.model.config, mean=(0.5,) * 3, std=(0.225,) * 3)
    model = type(stc.model)(config)
    model.load_state_dict(stc.model.state_dict())
    save_checkpoint(tmp_path / "stc.pt", replace(stc, model=model))
    assert _renewed(data, tmp_path / "stc.pt", tmp_path / "new.pt", "--schedule", "fast") == 0
    assert load_checkpoint(tmp_path / "new.pt").model.config.mean == (0.5, 0.5, 0.5)


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_detector_of_any_decoder_is_its_own_like(data: Path, decoder: str) -> None:
    taps = ("--taps", "layer1,layer2,layer3", "--size", "64", "--schedule", "fast")
    dataset = open_dataset(data)
    old = config_from(_parsed(*taps, "--decoder", decoder), dataset)
    assert config_like(old, _parsed(), set(), dataset, Path("old.pt")) == old
    others = {config_from(_parsed(*taps, "--decoder", name), dataset) for name in DECODERS if name != decoder}
    assert len(others) == len(DECODERS) - 1 and old not in others


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--taps", "layer1,layer2"], "its own taps layer1; found layer1, layer2; leave --taps out"),
        (["--encoder", "resnet34"], "its own encoder resnet18; found resnet34"),
        (["--size", "64"], "its own input_size 32, 48; found 64, 64; leave --size out"),
        (["--blocks", "8"], "its own coupling_blocks 1; found 8; leave --blocks out"),
        (["--pool", "layer2"], "--pool must name taps among layer1, or be none; found layer2"),
        (["--pool", "none"], "its own pooled layer1; found none; leave --pool out"),
        (["--decoder", "paper"], "its own halved layer1; found none; leave --decoder out"),
        (["--hidden", "0.5"], "its own hidden_units none; found"),
        (["--white", "65535"], "its own white 4095; found 65535; leave --white out"),
        (["--score", "paper"], "its own score place_deviation; found paper"),
        (["--weights", "random"], "has the encoder's weights in it; found --weights too"),
    ],
)
def test_another_detector_is_refused_in_one_line(
    words: list[str], said: str, data: Path, old: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _renewed(data, old, tmp_path / "new.pt", *words) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not (tmp_path / "new.pt").exists()


def test_an_interrupted_run_goes_on_from_its_own_start_alone(
    data: Path, old: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--schedule", "fast")
    with pytest.MonkeyPatch.context() as patch:
        interrupt_after_the_first_pass(patch)
        assert _renewed(data, old, tmp_path / "new.pt", *words) == 130
    other = load_checkpoint(old)
    next(iter(other.model.decoders.parameters())).data.add_(0.1)
    save_checkpoint(tmp_path / "other.pt", other)
    capsys.readouterr()
    assert _renewed(data, tmp_path / "other.pt", tmp_path / "new.pt", *words, "--resume") == 2
    assert "must come from the same run; found another start_from" in capsys.readouterr().err
    assert _renewed(data, old, tmp_path / "new.pt", *words, "--resume") == 0
    assert _renewed(data, old, tmp_path / "whole.pt", *words) == 0
    resumed, whole = (load_checkpoint(tmp_path / name) for name in ("new.pt", "whole.pt"))
    expected = whole.model.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in resumed.model.state_dict().items())


def test_of_added_images_some_are_held_out_and_the_others_are_split_as_without_them(data: Path, tmp_path: Path) -> None:
    write_dataset(tmp_path / "more", train=5, test_good=0, per_defect=0, size=64, seed=9)
    dataset = open_dataset(data)
    added = open_dataset(tmp_path / "more").train
    copies = [
        Path(shutil.copy(path, tmp_path / f"copy{index}.png"))
        for index, path in enumerate((dataset.train[0], added[0]))
    ]
    more = replace(dataset, added=(*added, *copies))  # copies count once
    train, selection, of_threshold = split_good(more, 0.1, 3)
    plain_train, plain_held_out = split_held_out(dataset.train, 0.1, 3)
    assert [path for path in train if path not in added] == plain_train
    assert [path for path in selection if path not in added] == plain_held_out and not of_threshold
    assert len(set(selection) & set(added)) == 1 and len(set(train) & set(added)) == 4
    assert more.sha256() != dataset.sha256() == replace(more, added=()).sha256()
