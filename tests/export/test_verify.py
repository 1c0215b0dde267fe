"""`export.verify` on a real small detector: its forms on disk, judged for real, held against numpy and scikit-learn."""

import functools
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image
from sklearn.metrics import roc_auc_score

from export import verify as command
from export.frame_size import resize_file_inside
from export.graph.onnx_files import get_info, load_model, save_model, set_info
from export.images.parity_images import good_images
from export.model.checkpoint import save_checkpoint
from export.precisions.detector_forms import find_forms
from export.precisions.typing import to_fp16, to_int8
from export.to_onnx import export_checkpoint, info_of
from export.verify import table, verify
from runtime.common.errors import run_command
from runtime.common.files import sha256_of
from runtime.engines.sidecar import Artefact, Threshold, write_sidecar
from runtime.images.preprocess import read_image
from runtime.report.accuracy import read_accuracy
from tests.support.export_fixtures import CALIBRATION_DATA, checkpoint_of, exported, run_model, small_config
from tests.support.onnx_inspection import nodes_of
from train.judging.model_file import store_threshold

CONFIG = small_config()
WEIGHTED = ("Conv", "Gemm")


@functools.cache
def written(folder: Path) -> Path:
    """Write every form of one detector into `folder` and return its checkpoint."""
    path = folder / "cable.pt"
    case = exported(CONFIG)
    save_checkpoint(path, checkpoint_of(CONFIG))
    info = info_of(checkpoint_of(CONFIG), path)
    forms = {"unfused": case.unfused, "": case.fused, "fp16": to_fp16(case.fused), "int8": quantised(case.fused)}
    for name, model in forms.items():
        model = copied(model)
        known = get_info(model, name)
        set_info(model, replace(info, fused=known.fused, precision=known.precision))
        save_model(model, folder / f"cable{f'.{name}' if name else ''}.onnx")
    return path


def copied(model):
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def quantised(model):
    names = {node.input[0] for node in nodes_of(model, *WEIGHTED)}
    return to_int8(model, dict.fromkeys(names, (-8.0, 8.0)))


@pytest.fixture(scope="module")
def forms(tmp_path_factory) -> Path:
    return written(tmp_path_factory.mktemp("forms"))


@pytest.fixture
def checkpoint(forms, tmp_path) -> Path:
    """A copy of the detector that a test may spoil."""
    return Path(shutil.copytree(forms.parent, tmp_path / "forms")) / forms.name


@pytest.fixture(scope="module")
def images():
    frames = exported(CONFIG).frames
    return replace(good_images(list(frames)), anomalous=np.array([False, True, True][: len(frames)]))


def run(capsys, *arguments) -> tuple[int, str, str]:
    status = run_command(command.main, [str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def dataset(folder: Path) -> Path:
    """Two good and two painted images in MVTec's layout."""
    rng = np.random.default_rng(0)
    for kind, count in (("good", 2), ("painted", 2)):
        (folder / "test" / kind).mkdir(parents=True)
        for index in range(count):
            frame = rng.integers(100, 140, (64, 96, 3), dtype=np.uint8)
            mask = np.zeros((64, 96), np.uint8)
            if kind != "good":
                frame[16:32, 16:48] = rng.integers(0, 256, (16, 32, 3))
                mask[16:32, 16:48] = 255
                (folder / "ground_truth" / kind).mkdir(parents=True, exist_ok=True)
                Image.fromarray(mask).save(folder / "ground_truth" / kind / f"{index}_mask.png")
            Image.fromarray(frame).save(folder / "test" / kind / f"{index}.png")
    return folder


def test_finds_what_stands_beside_and_orders_it(forms):
    expected = ["torch", "unfused", "fused", "fp16", "int8"]
    assert [contender.form for contender in find_forms([forms])] == expected
    assert [contender.form for contender in find_forms([forms.with_suffix(".int8.onnx"), forms])] == expected


def test_differences_are_numpys(forms, images):
    rows = verify(find_forms([forms]), images)
    frames = np.stack(images.frames)
    outputs = {name: run_model(load_model(forms.with_suffix(f".{name}.onnx")), frames) for name in ("fp16", "int8")}
    reference = rows[0].answers
    assert rows[0].parity is None
    for row in rows[3:]:
        maps, scores = outputs[row.contender.form]
        # another batch size: float32 rounding only
        assert row.parity.anomaly_map_max == pytest.approx(np.abs(maps - reference.maps).max(), abs=1e-5)
        assert row.parity.anomaly_map_median == pytest.approx(np.median(np.abs(maps - reference.maps)), abs=1e-5)
        assert row.parity.image_score_max == pytest.approx(np.abs(scores - reference.scores).max(), abs=1e-5)
    worst = [row.parity.anomaly_map_max for row in rows[1:]]
    assert max(worst[:2]) < 1e-4 < worst[2] < worst[3]  # exact forms, then 11 bits, then 8


def test_command_prints_one_table_with_auroc(forms, tmp_path, capsys):
    data = dataset(tmp_path / "data" / "plate")
    status, out, _ = run(capsys, forms, "--data", data.parent, "--class", "plate")
    lines = out.splitlines()
    assert lines[0] == "4 labelled images, against torch (cable.pt):"
    rows = {line.split()[0]: line.split() for line in lines[2:7]}
    assert list(rows) == ["torch", "unfused", "fused", "fp16", "int8"]
    frames = np.stack([read_image(path) for path in sorted((data / "test").rglob("*.png"))])
    maps, scores = run_model(load_model(forms.with_suffix(".onnx")), frames)
    truth = np.zeros(maps.shape, bool)
    truth[2:, 16:32, 16:48] = True
    assert float(rows["fused"][-2]) == pytest.approx(100 * roc_auc_score([0, 0, 1, 1], scores), abs=0.006)
    assert float(rows["fused"][-1]) == pytest.approx(100 * roc_auc_score(truth.ravel(), maps.ravel()), abs=0.006)
    assert float(rows["fp16"][2]) == pytest.approx(forms.with_suffix(".fp16.onnx").stat().st_size / 1e6, abs=0.051)
    assert status in (0, 1)  # a random detector's INT8 may be over its budget: told below


def test_json_says_of_each_file_what_the_table_does(forms, tmp_path, capsys):
    data = dataset(tmp_path / "data" / "plate")
    path = tmp_path / "verify.json"
    _, out, _ = run(capsys, forms, "--data", data, "--json", path)
    rows = {line.split()[1]: line.split() for line in out.splitlines()[2:7]}
    found = {accuracy.file: accuracy for accuracy in read_accuracy(path)}
    assert list(found) == list(rows)
    for name, accuracy in found.items():
        assert 100 * accuracy.image_auroc == pytest.approx(float(rows[name][-2]), abs=0.006)
        assert 100 * accuracy.pixel_auroc == pytest.approx(float(rows[name][-1]), abs=0.006)
        assert accuracy.model_sha256 == sha256_of(forms.with_name(name))
        assert (accuracy.images, accuracy.data) == (4, "plate")


def test_good_images_give_no_auroc(forms, capsys):
    _, out, _ = run(capsys, forms, "--images", CALIBRATION_DATA)
    assert out.startswith("24 good images, against torch")
    assert all(line.split()[-2:] == ["-", "-"] for line in out.splitlines()[2:7])


def test_a_wrong_graph_is_an_error(checkpoint, capsys):
    path = checkpoint.with_suffix(".onnx")
    model = load_model(path)
    weight = next(t for t in model.graph.initializer if t.name.endswith("/permutation/active/weight"))
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1.05), weight.name))
    save_model(model, path)
    status, _, error = run(capsys, checkpoint, "--images", CALIBRATION_DATA)
    assert status == 1
    assert "error: cable.onnx (fused) differs by" in error
    assert "cable.unfused.onnx" not in error


def test_a_precision_over_its_budget_is_an_error(checkpoint, tmp_path, capsys):
    fused = load_model(checkpoint.with_suffix(".onnx"))
    names = {node.input[0] for node in nodes_of(fused, *WEIGHTED)}
    save_model(to_int8(fused, dict.fromkeys(names, (-0.1, 0.1)), left_out=()), checkpoint.with_suffix(".int8.onnx"))
    status, out, error = run(capsys, checkpoint, "--images", CALIBRATION_DATA)
    assert (status, error) == (0, "") and "not held to a budget" in out  # generated images, another model
    own = tmp_path / "own"
    shutil.copytree(CALIBRATION_DATA, own, ignore=shutil.ignore_patterns("*.json"))
    status, out, error = run(capsys, checkpoint, "--images", own)
    assert status == 1
    assert "error: cable.int8.onnx (int8) costs" in error and "budget 0.5" in error
    assert "int8" in out  # the table is there all the same


def test_a_form_of_another_checkpoint_is_refused(checkpoint, capsys):
    path = checkpoint.with_suffix(".fp16.onnx")
    model = load_model(path)
    info = get_info(model, "")
    set_info(model, replace(info, sidecar=replace(info.sidecar, checkpoint_sha256="f" * 64, network_sha256="f" * 64)))
    save_model(model, path)
    status, out, error = run(capsys, checkpoint)
    assert status == 2 and not out
    assert "cable.fp16.onnx must be made from the same checkpoint as cable.pt" in error and "ffffffffffff" in error


def test_a_plan_that_cannot_run_here_says_why(checkpoint, images, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycuda", None)  # as on a machine without a GPU
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    plan = checkpoint.with_suffix(".plan")
    plan.write_bytes(b"built elsewhere")
    sidecar = get_info(load_model(checkpoint.with_suffix(".onnx")), "").sidecar
    artefact = Artefact("plan", "fp16", sha256_of(plan), "tensorrt_rtx", "0.0", "8.6")
    write_sidecar(plan, replace(sidecar, artefacts=(artefact,)))
    rows = verify(find_forms([checkpoint]), images)
    assert rows[-1].contender.form == "plan fp16" and rows[-1].answers is None
    assert not rows[-1].fault()
    text = table(rows, images)
    assert f"cable.plan could not run here: {rows[-1].unable}" in text and rows[-1].unable


@pytest.mark.parametrize(
    ("arguments", "found"),
    [(["nowhere.pt"], "nowhere.pt"), (["cable.json"], "cable.json"), (["cable.pt", "--class", "x"], "--class")],
)
def test_bad_input_is_one_line(arguments, found, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("cable.json", "cable.pt"):
        (tmp_path / name).touch()
    status, _, error = run(capsys, *arguments)
    assert status == 2 and found in error and error.count("\n") == 1


def test_an_engine_with_the_resize_inside_is_named_and_the_others_are_compared(checkpoint, capsys):
    fused = checkpoint.with_suffix(".onnx")
    resize_file_inside(fused, (96, 144), fused)
    status, out, err = run(capsys, checkpoint)
    assert (status, err) == (0, "")
    assert "could not run here: " in out and "frames of 96x144, which it resizes itself" in out
    status, _, err = run(capsys, fused)
    for path in checkpoint.parent.iterdir():
        if path != fused:
            path.unlink()
    status, _, err = run(capsys, fused)
    assert (status, err.count("\n")) == (2, 1)
    assert "must take images of its input size" in err


def test_a_threshold_set_in_the_checkpoint_since_is_no_other_model(checkpoint, tmp_path):
    for path in checkpoint.parent.iterdir():
        if path != checkpoint:
            path.unlink()
    export_checkpoint(checkpoint, checkpoint.with_suffix(".unfused.onnx"))
    store_threshold(checkpoint, "night", Threshold(0.5, "by hand"), default=True)
    assert [form.form for form in find_forms([checkpoint])] == ["torch", "unfused"]
