"""An ablation for real on a tiny set: its decoders are Trainer's, shared ones are trained once, and it goes on."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score

from export.model.cflow import CFlow, ModelConfig
from runtime.common.errors import UserError, run_command
from train import ablation
from train.comparing import decoder_pool
from train.comparing.decoder_pool import Keep, train_decoders
from train.comparing.decoder_run import DecoderJob, DecoderRun, train_decoder
from train.comparing.results import Judge
from train.comparing.variants import FlowKind, Variant, all_variants, default_variants
from train.data.open import Dataset, ImageCache, open_dataset, read_mask, split_held_out
from train.fit import build_model
from train.loop.augmentation import AS_IT_IS, Variation
from train.loop.feature_store import FeatureStore
from train.loop.processes import Processes
from train.loop.schedule import Recipe
from train.loop.training import Trainer
from train.synthetic import write_dataset

CONFIG = ModelConfig("resnet18", ("layer1", "layer2"), (64, 64))
RECIPE = Recipe(
    learning_rate=1e-3,
    meta_epochs=2,
    sub_epochs=1,
    batch=2,
    held_out=0.25,
    rotation_degrees=0,
    smooth_cosine=True,
    standardised_start=True,
)
OPTIONS = ["--encoder", "resnet18", "--weights", "random", "--size", "64", "--taps", "layer1,layer2"]
OPTIONS += ["--meta-epochs", "1", "--sub-epochs", "1", "--batch", "4", "--learning-rate", "1e-3", "--rotation", "0"]
CPU = torch.device("cpu")
ON_CPU = Processes(0, 1, CPU)


@pytest.fixture(scope="module", autouse=True)
def one_cpu_thread() -> Iterator[None]:
    """Compute where equal steps give equal bits: sums on a GPU, or over more threads, have no fixed order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ablation, "one_process", lambda: ON_CPU)
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "mvtec_screw"  # a class with rows in the paper
    write_dataset(root, train=6, test_good=2, per_defect=1, size=64)
    return root


@pytest.fixture(scope="module")
def dataset(data: Path) -> Dataset:
    return open_dataset(data)


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of an ablation that ran to its end, figures.json and decoders/ in it."""
    folder = tmp_path_factory.mktemp("finished")
    assert command(data, folder) == 0
    return folder


def command(data: Path, folder: Path, *more: str) -> int:
    files = ["--json", str(folder / "figures.json"), "--out-dir", str(folder / "decoders")]
    return run_command(ablation.main, ["--data", str(data), *files, *OPTIONS, *more])


def figures(folder: Path) -> dict[str, Any]:
    """Return what an ablation wrote, without the times that it took."""
    content: dict[str, Any] = json.loads((folder / "figures.json").read_text())
    del content["feature_minutes"]
    for variant in content["variants"]:
        assert variant.pop("minutes") > 0
    return content


def trained_by_trainer(dataset: Dataset, recipe: Recipe, folder: Path) -> Trainer:
    train, held_out = split_held_out(dataset.train, recipe.held_out, recipe.seed)
    images = ImageCache(train, CONFIG.input_size)
    trainer = Trainer(build_model(CONFIG, "random", images)[0], images, recipe, ON_CPU)
    trainer.run(folder / "state.pt", ImageCache(held_out, CONFIG.input_size), {})
    return trainer


def test_the_table_has_a_row_a_variant_and_the_papers_below(
    data: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "decoders").symlink_to(finished / "decoders")
    assert command(data, tmp_path) == 0  # from the decoders that stand
    out = capsys.readouterr().out
    rows = [line.split()[:4] for line in out.splitlines() if "conditional " in line and line[0].isdigit()]
    assert rows == [
        ["8", "2", "conditional", "soft"],
        ["4", "2", "conditional", "soft"],
        ["8", "1", "conditional", "soft"],
        ["8", "2", "unconditional", "soft"],
        ["8", "2", "conditional", "hard"],
        ["4", "1", "conditional", "hard"],
    ]
    assert out.count("maxima over held-out | test images") == 1
    for papers in ("97.38", "98.40", "94.98", "98.78"):  # ResNet-18 at 256 and 512; WideResNet-50 4 blocks, UFLOW
        assert papers in out
    content = figures(tmp_path)
    assert content == figures(finished)
    assert content["encoder_weights"] == "random, seed 0"
    assert len(list((finished / "decoders").iterdir())) == 9  # of 10 tap rows of the table
    scores = [variant["paper_score"] for variant in content["variants"]]
    assert [score is None for score in scores] == [False] + [True] * 5
    frozen, of_test, difference = (scores[0][key]["pixel_auroc"] for key in ("frozen", "test_maximum", "difference"))
    assert difference == frozen - of_test
    assert command(data, tmp_path, "--test-maximum") == 0
    assert capsys.readouterr().out.count("maxima over held-out | test images") == 6


def test_an_interrupted_ablation_goes_on_to_the_same_figures(data: Path, finished: Path, tmp_path: Path) -> None:
    save = decoder_pool.save_run

    def save_then_stop(*arguments: Any) -> None:
        save(*arguments)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoder_pool, "save_run", save_then_stop)
        assert command(data, tmp_path) == 130
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "decoders").iterdir()}
    assert 0 < len(kept) < 9
    assert not (tmp_path / "figures.json").exists()
    assert command(data, tmp_path) == 0
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert figures(tmp_path) == figures(finished)


@pytest.mark.parametrize("variation", [{}, {"rotation_degrees": 5.0}, {"light": 0.2, "shift": 3.0}])
def test_a_decoder_alone_takes_trainers_steps(dataset: Dataset, tmp_path: Path, variation: dict[str, float]) -> None:
    recipe = replace(RECIPE, **variation)
    trainer = trained_by_trainer(dataset, recipe, tmp_path)
    assert [entry["held_out_logp"] for entry in trainer.history] == sorted(e["held_out_logp"] for e in trainer.history)
    features, _ = ablation.prepare(dataset, CONFIG, recipe, "random", 1, CPU)
    tests = ImageCache([image.path for image in dataset.test], CONFIG.input_size)
    with torch.inference_mode():
        expected = trainer.model.log_likelihoods(torch.from_numpy(tests.batch(range(len(tests)))))
    for tap, (_, height, width) in enumerate(CONFIG.tap_sizes):
        decoder: Any = CFlow(CONFIG).decoders[tap]
        run = train_decoder(decoder, DecoderJob(tap, (height, width), recipe, ON_CPU), features)
        theirs = dict(trainer.model.decoders[tap].named_parameters())
        for name, parameter in decoder.named_parameters():
            if variation:  # features computed for each batch, as Trainer does: the same arithmetic
                assert torch.equal(parameter, theirs[name])
        # Kept features are float16, 2^-11 of a value: 1.6e-3 nats per dimension measured, the likelihood is about -2.
        torch.testing.assert_close(run.test, expected[tap], rtol=0, atol=5e-3)


def test_kept_features_are_trainers_fibers_within_float16(dataset: Dataset) -> None:
    images = ImageCache(dataset.train, CONFIG.input_size)
    model, _ = build_model(CONFIG, "random", images)
    store = FeatureStore(model, images, CPU)
    chosen = [5, 0, 3]
    expected = Trainer(model, images, RECIPE, ON_CPU)._fibers(torch.from_numpy(images.batch(chosen)))
    for tap, fibers in enumerate(expected):
        # float16 rounds by at most 2^-11 of a value, and by 2^-25 below its normal range
        torch.testing.assert_close(store.fibers(tap, chosen), fibers, rtol=2**-11, atol=2**-25)
    with pytest.raises(ValueError, match="images as they are"):
        store.fibers(0, chosen, [AS_IT_IS, Variation(angle=1.0), AS_IT_IS])


def test_features_beyond_float16_are_refused(dataset: Dataset) -> None:
    images = ImageCache(dataset.train[:1], CONFIG.input_size)
    model, _ = build_model(CONFIG, "random", images)
    model.std.mul_(1e-9)
    with pytest.raises(UserError, match="features must be at most 65504"):
        FeatureStore(model, images, CPU)


def test_fewer_taps_are_the_same_decoders_without_the_finest(dataset: Dataset) -> None:
    """A tap's decoder trained where no other is equals the one trained beside them, so its row needs no training."""
    features, identity = ablation.prepare(dataset, CONFIG, RECIPE, "random", 1, CPU)
    keep = Keep(None, CONFIG, identity)
    torch.set_num_threads(2)  # side by side, with a thread each
    both = train_decoders([(FlowKind(), 0), (FlowKind(), 1)], features, RECIPE, ON_CPU, keep)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)
    alone = train_decoders([(FlowKind(), 1)], features, RECIPE, ON_CPU, keep)
    judge = Judge(dataset, CONFIG)
    shared, separate = (judge.result(Variant(FlowKind(), 1), runs, test_maximum=True) for runs in (both, alone))
    assert torch.equal(both[FlowKind(), 1].test, alone[FlowKind(), 1].test)
    assert replace(shared, minutes=0) == replace(separate, minutes=0)


def test_the_papers_score_by_both_maxima_is_the_published_one(dataset: Dataset) -> None:
    generator = torch.Generator().manual_seed(0)
    runs = {}
    for tap, (_, *grid) in enumerate(CONFIG.tap_sizes):
        held_out, test = (torch.randn(count, *grid, generator=generator) - 2 for count in (2, len(dataset.test)))
        runs[FlowKind(), tap] = DecoderRun(held_out, test, 1.5)
    result = Judge(dataset, CONFIG).result(Variant(FlowKind(), 2), runs, test_maximum=True)
    labels = np.array([image.anomalous for image in dataset.test])
    masks = np.stack([read_mask(image, (64, 64)) for image in dataset.test])
    assert result.paper_score is not None
    for areas, of_test in ((result.paper_score.test_maximum, True), (result.paper_score.frozen, False)):
        # The published score: exp(logp - maximum), upsampled, summed, inverted by its largest value.
        total = torch.zeros(len(dataset.test), 64, 64, dtype=torch.float64)
        for run in runs.values():
            maximum = (run.test if of_test else run.held_out).max()
            ratio = (run.test.double() - maximum).exp().clamp_max(1)[:, None]
            total += F.interpolate(ratio, size=(64, 64), mode="bilinear", align_corners=True)[:, 0]
        scores = (total.max() - total).numpy()
        # float32 against float64 may swap a few of the millions of pairs of pixels
        assert areas.pixel_auroc == pytest.approx(roc_auc_score(masks.ravel(), scores.ravel()), abs=1e-5)
        assert areas.image_auroc == pytest.approx(roc_auc_score(labels, scores.max((1, 2))))
    assert result.minutes == 3
    means = [float(run.held_out.mean()) for run in runs.values()]
    assert result.held_out_logp == pytest.approx(sum(means) / 2, rel=1e-6)  # float32


def test_the_grid_holds_every_default_variant_once() -> None:
    grid = all_variants(3)
    assert len(set(grid)) == len(grid) == 16
    assert set(default_variants(3)) < set(grid)
    assert grid[0] == default_variants(3)[0] == Variant(FlowKind(8, True, True), 3)
    assert len({key for variant in grid for key in variant.decoders(3)}) == 24
    assert list(Variant(FlowKind(), 2).decoders(3)) == [(FlowKind(), 1), (FlowKind(), 2)]


@pytest.mark.parametrize(
    ("more", "found"),
    [
        (["--blocks", "4"], "varies --blocks"),
        (["--unconditional"], "varies --blocks"),
        (["--taps", "layer1"], "at least 2 taps"),
        (["--memory", "0"], "--memory must be above 0"),
        (["--memory", "1e-4"], "features must fit --memory 0.0001"),
        (["--learning-rate", "1e30", "--meta-epochs", "2"], "passes that all went wrong"),
        (["--seed", "1"], "must come from the same settings; found another"),
    ],
)
def test_bad_input_is_one_line(
    data: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], found: str
) -> None:
    if more[0] == "--seed":
        (tmp_path / "decoders").symlink_to(finished / "decoders")
    assert command(data, tmp_path, *more) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert found in errors[0]
    assert not (tmp_path / "figures.json").exists()


def test_data_and_folder_must_fit(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "decoders").touch()
    assert command(data, tmp_path) == 2
    assert "decoders must be a folder to write into; found the file" in capsys.readouterr().err
    write_dataset(tmp_path / "plain", train=4, test_good=0, per_defect=0, size=64)
    assert command(tmp_path / "plain", tmp_path / "out") == 2
    assert "must hold labelled images" in capsys.readouterr().err
    write_dataset(tmp_path / "half", train=4, test_good=2, per_defect=0, size=64)
    assert command(tmp_path / "half", tmp_path / "out") == 2
    assert "needs good and anomalous examples" in capsys.readouterr().err
