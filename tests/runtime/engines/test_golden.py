"""An engine is asked for scores that are known before anything it says is believed."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import runtime
from export.graph.onnx_files import save_model
from export.precisions.golden import measured
from runtime.common.errors import UserError
from runtime.common.files import sha256_of
from runtime.engines.golden import LARGEST_SIDE, PATCH, Golden
from runtime.engines.onnxruntime_session import OnnxRuntimeSession
from runtime.engines.openvino_session import OpenVinoSession
from runtime.engines.sidecar import Artefact, Sidecar, read_sidecar, write_sidecar
from tests.support.export_fixtures import exported, small_config


def picture(size: tuple[int, int] = (64, 96), seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3)).astype(np.uint8)


def write_engine(folder: Path, model: onnx.ModelProto, precision: str = "fp32", golden: Golden | None = None) -> Path:
    case = exported(small_config())
    path = folder / ("cable.onnx" if precision == "fp32" else f"cable.{precision}.onnx")
    save_model(model, path)
    golden = golden or measured(Golden.of(case.frames[0]), {precision: path}, case.info.sidecar.input_size)
    artefact = Artefact("onnx", precision, sha256_of(path))
    write_sidecar(path, replace(case.info.sidecar, artefacts=(artefact,), golden=golden))
    return path


def test_the_second_frame_has_a_dark_patch_and_both_are_enlarged_without_a_filter():
    image = picture()
    good, patched = Golden.of(image).frames((128, 192))
    assert np.array_equal(good, image.repeat(2, axis=0).repeat(2, axis=1))
    height, width = round(128 * (1 - PATCH) / 2), round(192 * (1 - PATCH) / 2)
    inside = np.zeros((128, 192), bool)
    inside[height : 128 - height, width : 192 - width] = True
    assert np.array_equal(patched[~inside], good[~inside]) and np.array_equal(patched[inside], good[inside] // 4)


def test_a_large_picture_is_kept_small():
    frames = Golden.of(np.zeros((2000, 3000, 3), np.uint8)).frames((2000, 3000))
    assert frames.shape == (2, 2000, 3000, 3)
    assert len(Golden.of(picture((1024, 1024))).png) < 4 / 3 * 3.2 * LARGEST_SIDE**2


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_sound_engine_opens_and_one_whose_numbers_were_changed_does_not(tmp_path, backend):
    case = exported(small_config())
    path = write_engine(tmp_path, case.fused)
    with runtime.load(path, backend=backend):
        pass
    golden = read_sidecar(path).golden
    model = onnx.ModelProto()
    model.CopyFrom(case.fused)
    stem = next(t for t in model.graph.initializer if t.name.startswith("encoder/bn1"))
    stem.CopyFrom(numpy_helper.from_array(1.5 * numpy_helper.to_array(stem), stem.name))
    path = write_engine(tmp_path, model, golden=golden)  # its hash is right, its answers are not
    with pytest.raises(UserError, match=r"golden frames as the build did, \d\.\d+ and \d\.\d+ within.*found \d"):
        runtime.load(path, backend=backend)


def test_where_openvino_computes_another_score_auto_takes_onnx_runtime(tmp_path, capsys, monkeypatch):
    """As OpenVINO 2026.4.1 does with an INT8 convolution behind a concatenation, here by a wrong sum."""
    path = write_engine(tmp_path, exported(small_config()).fused)
    rightly = OpenVinoSession._infer

    def wrongly(self, frames):
        maps, scores = rightly(self, frames)
        return maps, scores + np.float32(0.05)

    monkeypatch.setattr(OpenVinoSession, "_infer", wrongly)
    with runtime.load(path) as detector:
        assert "ONNX Runtime" in detector.session.device
    assert "OpenVINO is left out for cable.onnx: the engine must score" in capsys.readouterr().err
    with pytest.raises(UserError, match="golden frames"):
        runtime.load(path, backend="openvino")


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_an_engine_that_opens_has_run_on_the_golden_frames_or_on_an_empty_one(tmp_path, monkeypatch, backend):
    """No user's frame waits for what a first run compiles, and none is computed for that alone."""
    path = write_engine(tmp_path, exported(small_config()).fused)
    sidecar, judged = read_sidecar(path), []
    kind = {"openvino": OpenVinoSession, "onnxruntime": OnnxRuntimeSession}[backend]
    infer = kind._infer

    def seen(self, frames):
        judged.append(frames.copy())
        return infer(self, frames)

    monkeypatch.setattr(kind, "_infer", seen)
    runtime.load(path, backend=backend).close()
    assert np.array_equal(np.concatenate(judged), sidecar.golden.frames(sidecar.input_size))
    for golden in (None, replace(sidecar.golden, scores={"int8": (0.0, 0.0)})):  # none of this precision
        write_sidecar(path, replace(sidecar, golden=golden))
        judged.clear()
        runtime.load(path, backend=backend).close()
        assert len(judged) == 1 and not judged[0].any()


def test_a_sidecar_without_one_opens_and_a_damaged_one_is_refused(tmp_path):
    case = exported(small_config())
    path = write_engine(tmp_path, case.fused)
    whole = json.loads((tmp_path / "cable.json").read_text())
    Path(tmp_path / "cable.json").write_text(json.dumps({**whole, "golden": None}))
    with runtime.load(path, backend="onnxruntime"):
        pass
    wrong = {"png": "no picture", "scores": whole["golden"]["scores"]}
    for golden in (wrong, {**whole["golden"], "scores": {"fp32": [1]}}, {"png": 3, "scores": {}}, [], "x"):
        (tmp_path / "cable.json").write_text(json.dumps({**whole, "golden": golden}))
        with pytest.raises(UserError, match="golden"):
            runtime.load(path, backend="onnxruntime")


def test_it_is_the_same_after_json(tmp_path):
    path = write_engine(tmp_path, exported(small_config()).fused)
    sidecar = read_sidecar(path)
    assert Sidecar.from_json(json.loads(json.dumps(sidecar.to_json()))) == sidecar


def test_a_tiles_golden_frame_is_the_tile_mirrored_at_its_own_pixels_until_it_fills_the_frame():
    tile = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    golden = Golden.of(tile, mirrored=True)
    for height, width in ((48, 64), (130, 200), (20, 30), (97, 64)):
        good, patched = golden.frames((height, width))
        expected = np.pad(tile, ((0, 3 * 48), (0, 3 * 64), (0, 0)), "symmetric")[:height, :width]
        assert np.array_equal(good, expected)
        assert np.array_equal(patched[: height // 8], expected[: height // 8])
        assert patched[height // 2, width // 2].max() <= 63  # in the middle it is dark
    assert Golden.from_json({"png": golden.png, "scores": {}, "mirrored": True}) == golden
    assert Golden.from_json({"png": golden.png, "scores": {}}).mirrored is False  # of an earlier release
    with pytest.raises(TypeError, match="mirrored must be true or false"):
        Golden.from_json({"png": golden.png, "scores": {}, "mirrored": "yes"})


def test_the_golden_picture_of_a_large_tile_is_its_middle():
    tile = np.random.default_rng(0).integers(0, 256, (LARGEST_SIDE + 64, 32, 3), dtype=np.uint8)
    good, _ = Golden.of(tile, mirrored=True).frames((LARGEST_SIDE, 32))
    assert np.array_equal(good, tile[32 : LARGEST_SIDE + 32])
