"""Several classes by one command: what is kept, what goes on, what fails without stopping the rest, and the table."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from export.model.cflow import ModelConfig
from export.model.checkpoint import load_checkpoint
from runtime.common.errors import UserError, run_command
from train import fit, fit_classes
from train.data.open import Dataset, open_dataset
from train.evaluate import evaluate
from train.judging.class_table import ClassResult, averages, format_table, read_results, write_results
from train.loop.training import resume_path
from train.synthetic import write_dataset

OPTIONS = ["--encoder", "resnet18", "--taps", "layer1", "--blocks", "1", "--batch", "4", "--weights", "random"]
OPTIONS += ["--meta-epochs", "2", "--sub-epochs", "1", "--learning-rate", "1e-3", "--accept-poor"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of three classes: two whole ones (MVTec AD's name for one) and one that cannot be trained."""
    root = tmp_path_factory.mktemp("classes")
    write_dataset(root / "cable", train=4, test_good=2, per_defect=1, size=64, seed=1)
    write_dataset(root / "wire", train=4, test_good=2, per_defect=1, size=64, seed=2)
    (root / "broken/train/good").mkdir(parents=True)
    (root / "broken/train/good/0.png").write_bytes(b"no image")
    (root / "broken/train/good/1.png").write_bytes(b"no image either")
    return root


@pytest.fixture(scope="module")
def finished(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """Return the folder that the command has written for all classes, and its exit status."""
    out = tmp_path_factory.mktemp("models")
    arguments = ["--data", str(root), "--out-dir", str(out), "--size", "64", *OPTIONS]
    return out, run_command(fit_classes.main, arguments)


def command(root: Path, out: Path, *more: str) -> int:
    arguments = ["--data", str(root), "--out-dir", str(out), "--size", "64", *OPTIONS, *more]
    return run_command(fit_classes.main, arguments)


def stamps(out: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in out.glob("*.pt")}


def test_a_class_below_a_normal_distribution_is_named_and_ends_with_1(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*OPTIONS, "--size", "64", "--classes", "wire", "--learning-rate", "1e-6", "--meta-epochs", "1"]
    arguments = ["--data", str(root), "--out-dir", str(tmp_path), *words]
    assert run_command(fit_classes.main, [word for word in arguments if word != "--accept-poor"]) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("wire: this detector is not to be trusted: ")
    assert run_command(fit_classes.main, [*arguments, "--force"]) == 0


def test_a_class_that_fails_does_not_stop_the_others(finished: tuple[Path, int], root: Path) -> None:
    out, status = finished
    assert status == 2
    assert sorted(path.name for path in out.iterdir()) == [
        "cable.pt",
        "cable.suspects.jpg",
        "classes.json",
        "wire.pt",
        "wire.suspects.jpg",
    ]
    results = read_results(out / "classes.json")
    assert "must be a whole image" in results["broken"].error
    for name in ("cable", "wire"):
        result = results[name]
        assert (result.error, result.input_size) == ("", (64, 64))
        assert result.minutes is not None
        assert result.minutes > 0
        assert result.figures == asdict(evaluate(out / f"{name}.pt", root / name))
        assert load_checkpoint(out / f"{name}.pt").data_sha256 == open_dataset(root / name).sha256()


def test_what_is_finished_is_kept_with_its_minutes(
    finished: tuple[Path, int], root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, _ = finished
    before, record = stamps(out), read_results(out / "classes.json")
    assert command(root, out, "--classes", "wire, cable") == 0
    assert stamps(out) == before
    assert read_results(out / "classes.json") == record
    table, paper = capsys.readouterr().out.split("\n\n")
    assert [line.split()[0] for line in table.splitlines()[-4:]] == ["class", "wire", "cable", "average"]
    assert "PaDiM" in paper  # cable is a class of MVTec AD


def test_a_checkpoint_from_elsewhere_is_evaluated_without_minutes(
    finished: tuple[Path, int], root: Path, tmp_path: Path
) -> None:
    (tmp_path / "cable.pt").write_bytes((finished[0] / "cable.pt").read_bytes())
    assert command(root, tmp_path, "--classes", "cable") == 0
    result = read_results(tmp_path / "classes.json")["cable"]
    assert result.minutes is None
    assert result.figures == read_results(finished[0] / "classes.json")["cable"].figures


def test_a_kept_checkpoint_must_be_of_the_size_that_is_asked_for(
    finished: tuple[Path, int], root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cable.pt").write_bytes((finished[0] / "cable.pt").read_bytes())
    assert command(root, tmp_path, "--classes", "cable", "--size", "paper") == 2
    assert (
        "cable.pt must be trained with input_size 256x256; found 64x64; --force trains it anew"
        in capsys.readouterr().err
    )
    assert command(root, tmp_path, "--classes", "wire", "--size", "paper") == 2
    assert "--size paper needs a class of MVTec AD or a scene of STC; found" in capsys.readouterr().err


def interrupt_after_the_first_pass(patch: pytest.MonkeyPatch) -> None:
    save: Callable[..., None] = fit.Trainer._save

    def save_then_stop(self: fit.Trainer, *arguments: object) -> None:
        save(self, *arguments)
        raise KeyboardInterrupt

    patch.setattr(fit.Trainer, "_save", save_then_stop)


def test_an_interrupted_class_goes_on_or_is_forced_anew(finished: tuple[Path, int], root: Path, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        interrupt_after_the_first_pass(patch)
        assert command(root, tmp_path, "--classes", "cable") == 130
    assert resume_path(tmp_path / "cable.pt").is_file()
    assert not (tmp_path / "cable.pt").exists()
    state = resume_path(tmp_path / "cable.pt").read_bytes()
    # Another seed is another run: it cannot go on with this one's state, so its refusal shows that it tried to.
    assert command(root, tmp_path, "--classes", "cable", "--seed", "5") == 2
    assert command(root, tmp_path, "--classes", "cable", "--seed", "5", "--force") == 0
    assert load_checkpoint(tmp_path / "cable.pt").model.config.seed == 5
    (tmp_path / "cable.pt").unlink()
    resume_path(tmp_path / "cable.pt").write_bytes(state)
    assert command(root, tmp_path, "--classes", "cable") == 0
    whole, resumed = (load_checkpoint(out / "cable.pt") for out in (finished[0], tmp_path))
    assert resumed.history == whole.history


TINY = ModelConfig("resnet18", ("layer1",), (64, 64), coupling_blocks=1)


def test_a_defect_in_one_class_is_told_and_the_next_is_trained(
    finished: tuple[Path, int], root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def train_one(dataset: Dataset, config: ModelConfig, out: Path, resume: bool) -> None:
        asked.append((config, resume))
        if dataset.root.name == "cable":
            raise RuntimeError("out of memory")
        out.write_bytes((finished[0] / out.name).read_bytes())

    resume_path(tmp_path / "wire.pt").touch()
    job = fit_classes.Job(root, tmp_path, lambda dataset: TINY, train_one)
    results = fit_classes.fit_classes(job, ("cable", "wire"))
    assert [result.error for result in results] == ["RuntimeError('out of memory')", ""]
    assert results[1].figures == read_results(finished[0] / "classes.json")["wire"].figures
    assert "Traceback" in capsys.readouterr().err
    assert asked == [(TINY, False), (TINY, True)]


def test_a_class_without_test_images_is_trained_and_has_no_figures(
    finished: tuple[Path, int], root: Path, tmp_path: Path
) -> None:
    write_dataset(tmp_path / "data/plain", train=4, test_good=0, per_defect=0, size=64)

    def train_one(dataset: Dataset, config: ModelConfig, out: Path, resume: bool) -> None:
        out.parent.mkdir()
        out.write_bytes((finished[0] / "cable.pt").read_bytes())

    job = fit_classes.Job(tmp_path / "data", tmp_path / "models", lambda dataset: TINY, train_one)
    (result,) = fit_classes.fit_classes(job, ("plain",))
    assert (result.figures, result.error) == ({}, "")


def test_the_scenes_of_stc_are_classes_too(tmp_path: Path) -> None:
    root, rng = tmp_path / "stc", np.random.default_rng(0)
    for clip, count in (("training/frames/01_001", 4), ("testing/frames/01_0014", 2)):
        (root / clip).mkdir(parents=True)
        for index in range(count):
            Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(root / clip / f"{index}.jpg")
    masks = np.zeros((2, 64, 64), np.uint8)
    masks[1, :9] = 1
    for kind, labels in (("test_frame_mask", np.array([0, 1])), ("test_pixel_mask", masks)):
        (root / "testing" / kind).mkdir()
        np.save(root / "testing" / kind / "01_0014.npy", labels)
    assert command(root, tmp_path / "models") == 0
    result = read_results(tmp_path / "models/classes.json")["01"]
    assert (result.figures["images"], result.figures["anomalous"]) == (2, 1)
    assert result.figures["pixel_auroc"] is not None
    checkpoint = load_checkpoint(tmp_path / "models/01.pt")
    assert (checkpoint.data_origin, checkpoint.data_sha256) == ("stc/01", open_dataset(root / "01").sha256())
    assert (checkpoint.model.config.mean, checkpoint.model.config.std) == ((0.5,) * 3, (0.225,) * 3)


def test_classes_are_chosen_by_name(root: Path, tmp_path: Path) -> None:
    assert fit_classes.choose_classes(root, "all") == ("broken", "cable", "wire")
    assert fit_classes.choose_classes(root, "wire, cable,wire") == ("wire", "cable")
    with pytest.raises(UserError, match=r"all or some of broken, cable, wire; found screw"):
        fit_classes.choose_classes(root, "screw,cable")
    with pytest.raises(UserError, match="found none"):
        fit_classes.choose_classes(root, ",")
    (tmp_path / "models").touch()
    with pytest.raises(UserError, match="models must be a folder to write into; found the file"):
        fit_classes.main(["--data", str(root), "--out-dir", str(tmp_path / "models")])


def test_what_no_class_can_have_is_refused_at_once(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for option, value in (("--size", "16"), ("--batch", "0"), ("--precision", "half")):
        assert command(root, tmp_path, option, value) == 2
        assert capsys.readouterr().err.startswith(f"error: {option} must be")
    assert not list(tmp_path.iterdir())


RESULTS = [
    ClassResult("cable", "ab", (512, 512), 12.345, {"image_auroc": 0.9, "pixel_auroc": 0.8, "images": 3}),
    ClassResult("wire", "cd", (64, 128), None, {"image_auroc": 0.7, "pixel_auroc": None}),
    ClassResult("screw", "ef", (64, 64), 100.0, {"image_auroc": 0.1}, error="broken"),
]


def test_the_table_shows_what_there_is_and_averages_it() -> None:
    assert format_table(RESULTS).splitlines() == [
        "class       size  minutes  image AUROC  pixel AUROC",
        "cable    512x512     12.3       0.9000       0.8000",
        "wire      64x128        -       0.7000            -",
        "screw     failed",
        "average              12.3       0.8000       0.8000",
    ]
    assert averages(RESULTS) == pytest.approx({"minutes": 12.345, "image_auroc": 0.8, "pixel_auroc": 0.8})
    assert "AUPRO" in format_table([ClassResult("a", figures={"image_auroc": 1.0, "aupro": 0.5})])


def test_the_record_is_read_back_and_foreign_files_are_no_record(tmp_path: Path) -> None:
    path = tmp_path / "classes.json"
    assert read_results(path) == {}
    write_results(path, RESULTS)
    assert read_results(path) == {result.name: result for result in RESULTS}
    assert json.loads(path.read_text())["average"]["pixel_auroc"] == 0.8
    for content in ("{", "[]", '{"schema": "another/1", "classes": []}'):
        path.write_text(content)
        assert read_results(path) == {}


def test_a_kept_checkpoint_must_be_the_model_that_is_asked_for(
    finished: tuple[Path, int], root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cable.pt").write_bytes((finished[0] / "cable.pt").read_bytes())
    assert command(root, tmp_path, "--classes", "cable", "--unconditional") == 2
    assert "cable.pt must be trained with conditional False; found True; --force" in capsys.readouterr().err
