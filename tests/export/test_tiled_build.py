"""`export.build_engine` and what stands beside it, on a tiled detector: from the checkpoint to a verdict."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import runtime
from export import build_engine, frame_size, precision, sensitivity, verify
from export.graph.onnx_files import load_model
from export.graph.tiled_frame import tiles_at_once
from export.model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from export.model.tiled import module_of
from runtime.common.errors import UserError
from runtime.engines.onnxruntime_session import OnnxRuntimeSession
from runtime.engines.openvino_session import OpenVinoSession
from runtime.engines.sidecar import Threshold, read_sidecar
from runtime.images.tiles import TileGrid
from tests.support.export_fixtures import small_config
from tests.support.tiled_engines import tiled_detector

GRID = TileGrid((150, 200), (64, 96), 16)
CAMERA = (300, 410)


def pictures(folder, count, size):
    """Smooth good pictures of (height, width) `size`."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (10, 13, 3), np.uint8))
        coarse.resize(size[::-1], Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder with the checkpoint, good pictures, and the FP32, FP16 and INT8 files that were built from both."""
    folder = tmp_path_factory.mktemp("tiled")
    detector = tiled_detector(small_config(tiles=GRID))
    threshold = Threshold(1.999, "near the scale's end: no picture is beyond it")
    checkpoint = Checkpoint(detector.model, detector.constants, {"one": threshold}, "one", "random", "0" * 64)
    good = pictures(folder / "good", 12, GRID.frame)
    checkpoint.golden = torch.from_numpy(GRID.cut(np.array(Image.open(good / "0.png")))[0])
    save_checkpoint(folder / "cable.pt", checkpoint)
    build(folder / "cable.pt", good, "--fp16")
    build(folder / "cable.pt", good, "--int8")
    return folder


def build(checkpoint, good, *options):
    common = ["--no-plan", "--tiles-at-once", "2", "--allow-parity-miss", "--calibration-data", str(good)]
    build_engine.main([str(checkpoint), *common, *options])


def frames_of(folder: Path) -> np.ndarray:
    return np.stack([np.array(Image.open(folder / "good" / f"{number}.png")) for number in range(2)])


def test_the_sidecar_knows_the_frame_and_its_tiles(built):
    sidecar = read_sidecar(built / "cable.onnx")
    assert (sidecar.input_size, sidecar.tiles, sidecar.frame_size) == (GRID.frame, GRID, None)
    assert set(sidecar.golden.scores) == {"fp32", "int8"}  # of the last build
    assert {tiles_at_once(load_model(built / f"cable{kind}.onnx")) for kind in ("", ".int8")} == {2}


@pytest.mark.parametrize("session", [OnnxRuntimeSession, OpenVinoSession])
@pytest.mark.parametrize(("file", "tolerance"), [("unfused", 1e-4), ("", 1e-4), ("fp16", 2e-2), ("int8", 0.2)])
def test_every_form_says_what_torch_says(built, session, file, tolerance):
    checkpoint, frames = load_checkpoint(built / "cable.pt"), frames_of(built)
    with torch.no_grad():
        maps, scores = module_of(checkpoint.model, checkpoint.constants)(torch.from_numpy(frames))
    path = built / ".".join(filter(None, ("cable", file, "onnx")))
    sidecar = replace(read_sidecar(built / "cable.onnx"), replaced_by=None)
    with session(path, 1, sidecar) as opened:
        assert (opened.frame_size, opened.input_size) == (GRID.frame, GRID.frame)
        found = opened.run(frames)
        np.testing.assert_array_equal(opened.run(frames[:1])[0], opened.run(frames[:1])[0])
    np.testing.assert_allclose(found[0], maps, rtol=0, atol=tolerance)
    np.testing.assert_allclose(found[1], scores, rtol=0, atol=tolerance)


def test_the_forms_are_compared(built, capsys):
    assert verify.main([str(built / "cable.pt"), "--images", str(built / "good")]) == 0
    said = capsys.readouterr().out
    assert all(form in said for form in ("torch", "unfused", "fused", "fp16", "int8"))


def test_the_cameras_frames_are_resized_inside(built, tmp_path):
    build(built / "cable.pt", built / "good", "--int8", "--frame-size", "300x410", "--out", str(tmp_path / "c.plan"))
    detector = runtime.load(tmp_path / "c.int8.onnx")
    assert (detector.session.frame_size, detector.session.input_size) == (CAMERA, GRID.frame)
    frame = np.array(Image.open(built / "good" / "0.png").resize(CAMERA[::-1]))
    maps, _ = detector.session.run(frame[None])
    assert maps.shape == (1, *GRID.frame)
    frame_size.main([str(built / "cable.onnx"), "--frame-size", "222x333", "--out", str(tmp_path / "other.onnx")])
    assert runtime.load(tmp_path / "other.onnx").session.frame_size == (222, 333)
    with pytest.raises(UserError, match="must take frames of its input size 150x200"):
        precision.main([str(tmp_path / "other.onnx"), "--fp16"])


def test_the_other_commands_take_the_network_out_of_the_frame(built, tmp_path, capsys):
    alone = tmp_path / "alone.onnx"
    alone.write_bytes((built / "cable.onnx").read_bytes())
    precision.main([str(alone), "--int8", "--calibration-data", str(built / "good")])
    assert tiles_at_once(load_model(tmp_path / "alone.int8.onnx")) == 2
    sensitivity.main([str(alone), "--calibration-data", str(built / "good")])
    assert "layer1/subnet0" in capsys.readouterr().out


def test_tensorrt_rtx_builds_the_loop(built, tmp_path):
    pytest.importorskip("tensorrt_rtx")
    out = tmp_path / "cable.plan"
    options = ["--backend", "tensorrt_rtx", "--target", "8.9", "--batch", "2", "--frame-size", "300x410"]
    build_engine.main([str(built / "cable.pt"), "--fp16", *options, "--tiles-at-once", "4", "--out", str(out)])
    assert out.stat().st_size > 0
    assert read_sidecar(out).batch == 2
