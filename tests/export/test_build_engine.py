"""The build command on a small model, for real: torch's exporter, the rewrites and TensorRT-RTX's compiler."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import runtime
from export import build_engine
from export.find_model import find_model
from export.model.cflow import ModelConfig
from export.model.checkpoint import Checkpoint, save_checkpoint
from runtime.common.errors import UserError
from runtime.detector import Detector
from runtime.engines.sidecar import Threshold, read_sidecar, sidecar_path
from runtime.images.preprocess import read_image, resize
from tests.support.paths import ROOT
from train.data.open import ImageCache
from train.fit import build_model
from train.judging.scores import freeze

pytest.importorskip("tensorrt_rtx", reason="compiles engines without a GPU: pip install tensorrt-rtx")
CALIBRATION_DATA = ROOT / "calibration_data"


def write_checkpoint(path: Path) -> Path:
    config = ModelConfig("resnet18", ("layer1",), (64, 96), coupling_blocks=2)
    images = ImageCache(sorted(CALIBRATION_DATA.glob("*.jpg"))[:4], config.input_size)
    model, loaded = build_model(config, "random", images)
    constants, _ = freeze(model, images, 0.5, torch.device("cpu"))  # so that scores of such images are not saturated
    threshold = {"good_quantile": Threshold(0.75, "test")}
    checkpoint = Checkpoint(model.eval(), constants, threshold, "good_quantile", loaded, "0" * 64)
    save_checkpoint(path, checkpoint)
    return path


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint and its FP16 build, made once: the export takes most of the time."""
    folder = tmp_path_factory.mktemp("exported")
    write_checkpoint(folder / "cable.pt")
    assert run(folder, "--fp16") == 0
    return folder


@pytest.fixture
def built(exported: Path, tmp_path: Path) -> Iterator[Path]:
    yield Path(shutil.copytree(exported, tmp_path / "built"))


def run(folder: Path, *arguments: str) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["cflow-build"])
        return build_engine.run_command(
            build_engine.main, [*arguments, "--backend", "tensorrt_rtx", "--calibration-data", str(CALIBRATION_DATA)]
        )


def test_given_only_a_precision_it_builds_the_one_checkpoint_here(exported: Path) -> None:
    names = {path.name for path in exported.iterdir()}
    assert names == {"cable.pt", "cable.unfused.onnx", "cable.onnx", "cable.fp16.onnx", "cable.plan", "cable.json"}
    sidecar = read_sidecar(exported / "cable.plan")
    assert sidecar.name == "cable"
    assert sidecar.encoder_weights == "random, seed 0"
    plan = sidecar.artefact_of(exported / "cable.plan")
    assert (plan.kind, plan.precision, plan.library) == ("plan", "fp16", "tensorrt_rtx")
    assert sidecar.artefact_of(exported / "cable.onnx").precision == "fp32"
    assert sidecar.artefact_of(exported / "cable.unfused.onnx").precision == "fp32"
    assert sidecar.artefact_of(exported / "cable.fp16.onnx").precision == "fp16"


def _load(path: Path) -> Detector:
    """The library that the parity was measured with; another sums in another order."""
    return runtime.load(path, backend="onnxruntime")


def test_the_fp16_onnx_gives_the_parity_that_the_sidecar_tells(exported: Path) -> None:
    parity = read_sidecar(exported / "cable.plan").parity["fp16"]
    images = sorted(CALIBRATION_DATA.glob("*.jpg"))
    frames = [
        resize(read_image(path), (64, 96)) for path in images
    ]  # as training does, and parity; a line resizes faster
    with _load(exported / "cable.onnx") as wide, _load(exported / "cable.fp16.onnx") as narrow:
        scores = [(wide(image).image_score, narrow(image).image_score) for image in frames]
    errors = np.abs(np.subtract(*np.transpose(scores)))
    assert parity["frames"] == len(images)
    # the same frames through another code path: only the last bits of a float32 score may differ
    assert parity["image_score_max"] == pytest.approx(errors.max(), abs=1e-6)
    assert parity["image_score_median"] == pytest.approx(np.median(errors), abs=1e-6)
    assert 0 < parity["image_score_max"] < 0.02  # FP16 has 11 bits: 5e-4 relative a product, over some layers


def test_int8_and_a_batch_go_to_the_name_asked_for(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(built, "--int8", "--batch", "4", "--out", "small.plan") == 0
    sidecar = read_sidecar(built / "small.plan")
    assert sidecar.batch == 4
    assert sidecar.artefact_of(built / "small.plan").precision == "int8"
    assert len(sidecar.calibration_sha256) == 64
    assert set(sidecar.parity) == {"int8"}
    out = capsys.readouterr().out
    assert "cable.unfused.onnx is up to date" in out
    assert "refill it" in out  # the shipped images are a stand-in, and this model was not trained on them
    assert read_sidecar(built / "cable.plan").artefact_of(built / "cable.plan")  # the first build is untouched


def test_a_missed_budget_ends_before_anything_is_typed(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = built / "own"
    shutil.copytree(CALIBRATION_DATA, own, ignore=shutil.ignore_patterns("*.json"))
    before = {path.name: path.read_bytes() for path in built.iterdir() if path.is_file()}
    arguments = ["cable.pt", "--int8", "--no-plan", "--budget-image", "0", "--calibration-data", "own"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(built)
        assert build_engine.run_command(build_engine.main, arguments) == 2
        error = capsys.readouterr().err.splitlines()[-1]
        assert "int8 must keep to its parity budget" in error and "points of image AUROC (budget 0)" in error
        after = {path.name: path.read_bytes() for path in built.iterdir() if path.is_file()}
        assert after == before
        assert build_engine.run_command(build_engine.main, [*arguments, "--allow-parity-miss"]) == 0
    assert "PARITY MISSED" in capsys.readouterr().out
    assert read_sidecar(built / "cable.onnx").parity["int8"]["within_budget"] == 0


def test_a_threshold_edited_in_the_sidecar_outlives_a_rebuild(built: Path) -> None:
    sidecar = sidecar_path(built / "cable.plan")
    value = json.loads(sidecar.read_text())
    value["thresholds"]["line 3"] = {"value": 0.85, "method": "by hand"}
    value["default_threshold"] = "line 3"
    sidecar.write_text(json.dumps(value))
    assert run(built, "--fp16") == 0
    assert read_sidecar(built / "cable.plan").threshold == Threshold(0.85, "by hand")


def test_another_checkpoint_of_the_same_name_is_exported_anew(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = torch.load(built / "cable.pt", weights_only=True)
    content["constants"] = torch.tensor([[-0.5], [1.0]])
    torch.save(content, built / "cable.pt")
    before = (built / "cable.onnx").read_bytes()
    assert run(built, "--fp32", "--no-plan") == 0
    assert "exporting cable.pt" in capsys.readouterr().out
    assert (built / "cable.onnx").read_bytes() != before


def test_an_onnx_alone_is_enough(built: Path) -> None:
    (built / "cable.pt").unlink()
    (built / "cable.unfused.onnx").unlink()
    assert run(built, "--fp32") == 0
    sidecar = read_sidecar(built / "cable.plan")
    assert sidecar.artefact_of(built / "cable.plan").precision == "fp32"
    assert sidecar.threshold.value == 0.75


def test_several_models_are_listed_and_nothing_is_built(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(built / "cable.pt", built / "screw.pt")
    assert run(built, "--fp16") == 2
    error = capsys.readouterr().err.strip()
    assert error.count("\n") == 0
    assert "cable, screw" in error


def test_find_model_takes_the_best_start_and_no_variant(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="checkpoint"):
        find_model(tmp_path)
    for name in ("cable.unfused.onnx", "cable.onnx", "cable.pt"):
        (tmp_path / name).touch()
        assert find_model(tmp_path).name == name
    for name in ("other.fp16.onnx", "other.int8.onnx", "other.training.pt", ".hidden.onnx"):
        (tmp_path / name).touch()
        assert find_model(tmp_path).name == "cable.pt"


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["nothing.pt"], "nothing.pt"),
        (["cable.json"], "cable.json"),
        (["--out", "cable.engine"], "cable.engine"),
        (["--batch", "0"], "0"),
        (["--int8", "--calibration-data", "nowhere"], "nowhere"),
    ],
)
def test_bad_input_is_one_line_and_leaves_the_build_as_it_was(
    built: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], found: str
) -> None:
    before = {path.name: path.read_bytes() for path in built.iterdir()}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(built)
        assert build_engine.run_command(build_engine.main, [*arguments, "--backend", "tensorrt_rtx"]) == 2
    error = capsys.readouterr().err.strip()
    assert found in error
    assert error.count("\n") == 0
    after = {path.name: path.read_bytes() for path in built.iterdir()}
    assert after["cable.plan"] == before["cable.plan"]
    assert after["cable.json"] == before["cable.json"]


def test_a_full_disk_is_one_line_and_the_old_file_stays(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("may not mount a small file system here")
    try:
        (disk / "cable.json").write_text("old")
        program = (
            "import sys; from runtime.common.errors import run_command; from runtime.common.files import write_bytes\n"
            "sys.exit(run_command(lambda argv: write_bytes(sys.argv[1], bytes(1 << 20))))"
        )
        command = [sys.executable, "-c", program, str(disk / "cable.json")]
        ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
        assert ended.returncode == 2
        assert "the disk is full" in ended.stderr
        assert ended.stderr.count("\n") == 1
        assert [(path.name, path.read_text()) for path in disk.iterdir()] == [("cable.json", "old")]
    finally:
        subprocess.run(["umount", str(disk)], check=True)
