"""Detectors of tiles from `train.fit --tiles` to their figures: frames are what is held out, judged and promised."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from export.images.labelled import GOOD, LabelledImage, read_masks
from export.model.cflow import DetectorModule
from export.model.checkpoint import Checkpoint, load_checkpoint
from export.model.tiled import TiledDetector
from export.to_onnx import sidecar_of
from runtime.common.errors import run_command
from runtime.images.preprocess import ReadOptions, read_image, resize
from runtime.images.tiles import TileGrid
from tests.support.small_disk import small_disk
from tests.train.loop.test_processes import torchrun
from tests.train.test_fit import interrupt_after_the_first_pass
from train import evaluate, fit, fit_classes, set_threshold
from train.data.frame_tiles import TileCache
from train.data.open import open_dataset, split_good
from train.judging import kept_maps
from train.judging.false_alarms import from_good_images
from train.judging.judged_set import judge
from train.synthetic import write_dataset

GRID = TileGrid((96, 128), (64, 64), 16)
MODEL = ["--encoder", "resnet18", "--taps", "layer1,layer2", "--blocks", "1", "--weights", "random", "--accept-poor"]
SHORT = ["--schedule", "fast", "--meta-epochs", "2", "--batch", "8", "--held-out", "0.25"]
TILES = ["--tiles", "64", "--overlap", "16"]


def frame(picture: Path, size: tuple[int, int]) -> None:
    """Cut an image or a mask to another shape, so that rows are not columns."""
    with Image.open(picture) as opened:
        opened.crop((0, 0, size[1], size[0])).save(picture)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("frames")
    write_dataset(root, train=8, test_good=3, per_defect=1, size=128)
    for path in root.rglob("*.png"):
        frame(path, GRID.frame)
    return root


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiled") / "cable.pt"
    assert run_command(fit.main, ["--data", str(data), "--out", str(path), *MODEL, *SHORT, *TILES]) == 0
    assert sorted(file.name for file in path.parent.iterdir()) == ["cable.pt", "cable.suspects.jpg"]
    return path


def refusal(command: Callable[[list[str]], object], words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert run_command(command, words) == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    return line


def reference(checkpoint: Checkpoint, paths: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Return maps and scores of frames as the module that an engine is held to gives them."""
    module = TiledDetector(DetectorModule(checkpoint.model, checkpoint.constants).eval())
    size, read = checkpoint.model.config.judged_size, ReadOptions(checkpoint.model.config.white)
    frames = np.stack([resize(read_image(path, read), size) for path in paths])
    with torch.inference_mode():
        maps, scores = module(torch.from_numpy(frames))
    return maps.numpy(), scores.numpy()


def test_the_checkpoint_is_of_tiles_in_frames_of_the_images_own_size(trained: Path) -> None:
    checkpoint = load_checkpoint(trained)
    config = checkpoint.model.config
    assert (config.tiles, config.input_size, config.judged_size) == (GRID, (64, 64), (96, 128))
    assert checkpoint.golden is not None and tuple(checkpoint.golden.shape) == (64, 64, 3)
    assert checkpoint.image_facts is not None and checkpoint.population is not None
    sidecar = sidecar_of(checkpoint, trained)
    assert sidecar.golden is not None and sidecar.golden.mirrored
    assert sidecar.golden.frames(GRID.frame).shape == (2, 96, 128, 3)


def test_the_golden_tile_is_of_a_frame_that_was_held_out(trained: Path, data: Path) -> None:
    checkpoint = load_checkpoint(trained)
    _, selection, _ = split_good(open_dataset(data), 0.25, 0)
    assert torch.equal(checkpoint.golden, torch.from_numpy(TileCache(selection, GRID).image(GRID.count // 2)))


def test_the_threshold_and_what_it_is_promised_by_are_frames(trained: Path, data: Path) -> None:
    checkpoint = load_checkpoint(trained)
    train, selection, of_threshold = split_good(open_dataset(data), 0.25, 0)
    assert not set(train) & set(selection) and len(train) + len(selection) == 8 and not of_threshold
    maps, scores = reference(checkpoint, selection)
    expected = from_good_images(scores.tolist(), 0.01, maps.max(axis=(1, 2)).tolist(), apart=False)
    found = checkpoint.thresholds["good_quantile"]
    assert found.value == pytest.approx(expected.value, abs=1e-4)  # batches of other sizes round otherwise
    assert found.map_value == pytest.approx(expected.map_value, abs=1e-4)
    assert found.method == expected.method and " of 2 held-out good images" in found.method
    assert checkpoint.population is not None and checkpoint.population.count == 2
    assert checkpoint.population.grids == {}  # a map that is put together tells no taps apart
    assert checkpoint.population.points["score"][-1] == pytest.approx(scores.max(), abs=1e-4)


def test_no_frame_is_trained_on_and_held_out(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used: dict[str, set[Path]] = {"trained": set(), "held out": set()}
    train_pass, end_pass = fit.Trainer.train_pass, fit.Trainer.end_pass

    def train_watched(self: fit.Trainer, *arguments: object) -> float:
        assert isinstance(self.images, TileCache)
        used["trained"].update(self.images.paths)
        return train_pass(self, *arguments)  # type: ignore[arg-type]

    def end_watched(self: fit.Trainer, loss: float, held_out: TileCache) -> str:
        used["held out"].update(held_out.paths)
        return end_pass(self, loss, held_out)

    monkeypatch.setattr(fit.Trainer, "train_pass", train_watched)
    monkeypatch.setattr(fit.Trainer, "end_pass", end_watched)
    words = ["--data", str(data), "--out", str(tmp_path / "a.pt"), *MODEL, *SHORT, *TILES]
    assert run_command(fit.main, words) == 0
    assert len(used["trained"]) == 6 and len(used["held out"]) == 2 and not used["trained"] & used["held out"]


def test_an_interrupted_run_goes_on_to_the_same_bits(trained: Path, data: Path, tmp_path: Path) -> None:
    words = ["--data", str(data), "--out", str(tmp_path / "cable.pt"), *MODEL, *SHORT, *TILES]
    with pytest.MonkeyPatch.context() as patch:
        interrupt_after_the_first_pass(patch)
        assert run_command(fit.main, words) == 130
    assert [path.name for path in tmp_path.iterdir()] == ["cable.training.pt"]  # and no frames
    assert run_command(fit.main, [*words, "--resume"]) == 0
    resumed, whole = load_checkpoint(tmp_path / "cable.pt"), load_checkpoint(trained)
    expected = whole.model.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in resumed.model.state_dict().items())
    assert torch.equal(resumed.constants, whole.constants) and resumed.thresholds == whole.thresholds


def test_another_grid_is_another_run(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--data", str(data), "--out", str(tmp_path / "cable.pt"), *MODEL, *SHORT, "--tiles", "64"]
    with pytest.MonkeyPatch.context() as patch:
        interrupt_after_the_first_pass(patch)
        assert run_command(fit.main, [*words, "--overlap", "16"]) == 130
    line = refusal(fit.main, [*words, "--overlap", "0", "--resume"], capsys)
    assert "must come from the same run; found another config" in line


def test_evaluation_is_the_reference_detectors_on_full_size_masks(
    trained: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = open_dataset(data).test
    judged = judge(trained, images)
    maps, scores = reference(load_checkpoint(trained), [image.path for image in images])
    np.testing.assert_allclose(judged.scores, scores, atol=1e-4)
    np.testing.assert_allclose(judged.maps, maps, atol=1e-4)
    masks = read_masks(images, GRID.frame)
    assert all(np.array_equal(ours, theirs) for ours, theirs in zip(judged.masks, masks, strict=True))
    figures, report = tmp_path / "figures.json", tmp_path / "report.html"
    words = [str(trained), "--data", str(data), "--json", str(figures), "--report", str(report)]
    assert run_command(evaluate.main, words) == 0
    found = json.loads(figures.read_text())[str(trained)]
    assert found["images"] == len(images) and found["pixel_auroc"] is not None and report.stat().st_size > 1000


def test_a_set_on_disk_has_the_figures_of_one_in_memory(
    trained: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = evaluate.evaluate(trained, data)
    monkeypatch.setattr(kept_maps, "IN_MEMORY", 0)
    assert evaluate.evaluate(trained, data) == expected
    assert isinstance(judge(trained, open_dataset(data).test).maps, np.memmap)


def test_a_threshold_is_set_from_good_frames_and_of_labelled_ones(
    trained: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = shutil.copy(trained, tmp_path / "cable.pt")
    good = sorted((data / "test/good").iterdir())
    assert run_command(set_threshold.main, [str(model), "--good", str(data / "test/good")]) == 0
    _, scores = reference(load_checkpoint(trained), good)
    checkpoint = load_checkpoint(model)
    found = checkpoint.thresholds[checkpoint.default_threshold]
    assert found.value == pytest.approx(scores.max(), abs=1e-4) and "from 3 held-out good images" in found.method
    assert run_command(set_threshold.main, [str(model), "--data", str(data)]) == 0
    line = refusal(set_threshold.main, [str(model), "--good", str(data / "train/good")], capsys)
    assert "must be images that the model was not trained on" in line


def test_training_goes_on_from_a_tiled_detector_as_it_is_cut(
    trained: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--data", str(data), "--out", str(tmp_path / "new.pt"), "--start-from", str(trained), "--accept-poor"]
    assert run_command(fit.main, [*words, *SHORT]) == 0
    assert load_checkpoint(tmp_path / "new.pt").model.config == load_checkpoint(trained).model.config
    for more in (["--overlap", "0"], ["--tiles", "96"], ["--size", "128x128"]):
        line = refusal(fit.main, [*words, *SHORT, *more], capsys)
        assert f"needs a detector with its own tiles {GRID}" in line and "leave --tiles out" in line


def test_a_plain_detector_does_not_become_a_tiled_one(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = ["--data", str(data), "--out", str(tmp_path / "old.pt"), *MODEL, *SHORT, "--size", "64"]
    assert run_command(fit.main, plain) == 0
    words = ["--data", str(data), "--out", str(tmp_path / "new.pt"), "--start-from", str(tmp_path / "old.pt"), *SHORT]
    assert "needs a detector with its own tiles none" in refusal(fit.main, [*words, *TILES, "--size", "96x128"], capsys)


@pytest.mark.parametrize(
    ("more", "error"),
    [
        (["--tiles", "500"], "multiples of 8 pixels"),
        (["--tiles", "many"], "--tiles must be 512"),
        (["--tiles", "256"], "tiles must lie within the frame; found tiles of 256x256 pixels in a frame of 96x128"),
        (["--tiles", "64", "--overlap", "30"], "overlap of tiles must be 0 to 21"),
        (["--tiles", "auto"], "needs the smallest defect"),
        (["--overlap", "30"], "--overlap is for tiles"),
        (["--smallest-defect", "5px"], "--smallest-defect is for tiles"),
    ],
)
def test_tiles_that_cannot_be_cut_are_refused_in_one_line(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], error: str
) -> None:
    words = ["--data", str(data), "--out", str(tmp_path / "cable.pt"), *MODEL, *SHORT, *more]
    assert error in refusal(fit.main, words, capsys)
    assert list(tmp_path.iterdir()) == []


def test_frames_of_other_sizes_of_16_bits_and_from_a_list_are_trained_on(tmp_path: Path) -> None:
    random, rows = np.random.default_rng(0), ["path,split"]
    for index, size in enumerate([(96, 128), (96, 128), (96, 128), (110, 140), (60, 70)]):  # one smaller than the frame
        levels = random.integers(0, 4096, (size[0] // 4 + 1, size[1] // 4 + 1)).astype(np.uint16)
        Image.fromarray(np.kron(levels, np.ones((4, 4), np.uint16))[: size[0], : size[1]]).save(
            tmp_path / f"{index}.png"
        )
        rows.append(f"{index}.png,train")
    (tmp_path / "list.csv").write_text("\n".join(rows))
    words = [
        "--data",
        str(tmp_path / "list.csv"),
        "--out",
        str(tmp_path / "deep.pt"),
        "--white",
        "4095",
        *MODEL,
        *SHORT,
    ]
    assert run_command(fit.main, [*words, "--tiles", "2x2", "--light", "0.1", "--shift", "2", "--blur", "0.5"]) == 0
    checkpoint = load_checkpoint(tmp_path / "deep.pt")
    config = checkpoint.model.config
    assert config.judged_size == (96, 128) and config.white == 4095 and config.tiles is not None
    assert config.tiles.count == 4
    judged = judge(tmp_path / "deep.pt", [LabelledImage(tmp_path / "3.png", GOOD, None)])
    _, scores = reference(checkpoint, [tmp_path / "3.png"])
    assert judged.maps.shape == (1, 96, 128)
    np.testing.assert_allclose(judged.scores, scores, atol=1e-4)


def test_a_bad_frame_is_named_and_leaves_nothing(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copied = shutil.copytree(data, tmp_path / "frames")
    whole = (copied / "train/good/004.png").read_bytes()
    (copied / "train/good/004.png").write_bytes(whole[: len(whole) // 2])
    words = ["--data", str(copied), "--out", str(tmp_path / "out/cable.pt"), *MODEL, *SHORT, *TILES]
    assert "004.png" in refusal(fit.main, words, capsys)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_disk_too_small_for_the_frames_is_refused_before_training(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with small_disk(tmp_path / "disk", "128k") as disk:
        words = ["--data", str(data), "--out", str(disk / "cable.pt"), *MODEL, *SHORT, *TILES]
        assert "frames of 96x128 need" in refusal(fit.main, words, capsys)
        assert list(disk.iterdir()) == []


def test_classes_are_trained_in_tiles_and_kept_only_if_they_are_cut_alike(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "classes").mkdir()
    shutil.copytree(data, tmp_path / "classes/wire")
    words = ["--data", str(tmp_path / "classes"), "--out-dir", str(tmp_path / "out"), *MODEL, *SHORT]
    assert run_command(fit_classes.main, [*words, *TILES]) == 0
    result = json.loads((tmp_path / "out/classes.json").read_text())["classes"][0]
    assert result["input_size"] == [96, 128] and result["figures"]["aupro"] is not None
    capsys.readouterr()
    assert run_command(fit_classes.main, [*words, *TILES]) == 0
    assert "stands: kept" in capsys.readouterr().out
    assert run_command(fit_classes.main, [*words, "--tiles", "64", "--overlap", "0"]) == 2
    assert "must be trained with tiles 2x2 tiles of 64x64" in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_train_one_tiled_detector(data: Path, tmp_path: Path) -> None:
    words = ["--data", data, "--out", tmp_path / "cable.pt", *MODEL, *SHORT, *TILES]
    ended: subprocess.CompletedProcess[str] = torchrun("-m", "train.fit", *words)
    assert ended.returncode == 0, ended.stderr
    checkpoint = load_checkpoint(tmp_path / "cable.pt")
    assert checkpoint.model.config.tiles == GRID and len(checkpoint.history) == 2
    assert sorted(file.name for file in tmp_path.iterdir()) == ["cable.pt", "cable.suspects.jpg"]
    judge(tmp_path / "cable.pt", [LabelledImage(path, GOOD, None) for path in sorted((data / "test/good").iterdir())])
