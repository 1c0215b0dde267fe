"""An engine with the resize inside, from the build command to the verdict on a video."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from PIL import Image

import runtime
from export import build_engine, frame_size, fuse, precision
from export.frame_size import check_resize, parse_frame_size, resize_inside
from export.graph.onnx_files import get_info, save_model
from export.model.checkpoint import save_checkpoint
from export.precisions.typing import to_fp16
from runtime import infer
from runtime.common.errors import UserError, run_command
from runtime.engines.sidecar import Sidecar, read_sidecar
from runtime.images.preprocess import resize
from runtime.report import main as report
from runtime.report.schema import read_report
from tests.support.export_fixtures import CALIBRATION_DATA, checkpoint_of, exported, run_model, small_config
from train.data.open import LabelledImage
from train.judging.judged_set import judge

CAMERA = (720, 1280)
SCORE_TOLERANCE = 1e-3  # of a range of 2: what a grey level in a few of ten thousand values does to the score


def camera_frames(size=CAMERA, count=2):
    """Photographs' stand-ins in the camera's size."""
    images = sorted(CALIBRATION_DATA.glob("*.jpg"))[:count]
    return np.stack(
        [np.array(Image.open(path).convert("RGB").resize(size[::-1], Image.Resampling.LANCZOS)) for path in images]
    )


def run(command, *arguments):
    return run_command(command.main, [str(argument) for argument in arguments])


SLIM = {"score": "tap_deviation", "pooled": ("layer1", "layer2"), "halved": ("layer1", "layer2")}


@pytest.mark.parametrize(("typed_as", "changes"), [("fp32", {}), ("fp16", {}), ("fp32", SLIM)])
def test_the_engine_says_what_it_says_of_frames_resized_as_in_training(typed_as, changes):
    model = exported(small_config(**changes)).fused
    model = to_fp16(model) if typed_as == "fp16" else model
    inside = resize_inside(model, CAMERA, "cable.onnx")
    assert get_info(inside, "").sidecar.frame_size == CAMERA and get_info(model, "").sidecar.frame_size is None
    assert get_info(inside, "").precision == get_info(model, "").precision
    frames = camera_frames()
    maps, scores = run_model(inside, frames)
    wanted_maps, wanted_scores = run_model(model, np.stack([resize(frame, (64, 96)) for frame in frames]))
    assert maps.shape == (2, 64, 96)
    np.testing.assert_allclose(scores, wanted_scores, rtol=0, atol=SCORE_TOLERANCE)
    np.testing.assert_allclose(maps, wanted_maps, rtol=0, atol=20 * SCORE_TOLERANCE)  # no mean over positions
    alone = run_model(inside, frames[1:])
    np.testing.assert_allclose(alone[0], maps[1:], rtol=0, atol=1e-5)  # other frames of the batch: rounding at most


def test_the_check_sees_a_resize_that_is_not_the_training_one():
    inside = resize_inside(exported(small_config()).fused, CAMERA, "cable.onnx")
    found = check_resize(inside, "cable.onnx")
    assert found.largest == 1 and 0 < found.share < 0.02
    assert "at most 1 grey level" in str(found)
    for tensor in inside.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if tensor.name.startswith("resize/") and values.ndim == 2:  # the height's matrices
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(values[:, ::-1]), tensor.name))
    with pytest.raises(UserError, match="within a grey level; found at most"):
        check_resize(inside, "cable.onnx")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder with a checkpoint and its INT8 build for 720p, made once."""
    pytest.importorskip("tensorrt_rtx", reason="compiles engines without a GPU: pip install tensorrt-rtx")
    folder = tmp_path_factory.mktemp("built")
    save_checkpoint(folder / "cable.pt", checkpoint_of(small_config(("layer1",))))
    assert build(folder, "--int8", "--frame-size", "720x1280") == 0
    return folder


def build(folder, *arguments):
    calibration = ("--calibration-data", CALIBRATION_DATA)
    return run(build_engine, folder / "cable.pt", *arguments, "--backend", "tensorrt_rtx", *calibration)


@pytest.fixture
def folder(built, tmp_path):
    return Path(shutil.copytree(built, tmp_path / "built"))


def test_the_sidecar_tells_both_sizes(built):
    sidecar = read_sidecar(built / "cable.plan")
    assert (sidecar.frame_size, sidecar.input_size) == (CAMERA, (64, 96))
    assert sidecar.engine_frame_size == CAMERA
    assert sidecar.artefact_of(built / "cable.plan").kind == "plan"
    for name in ("cable.unfused.onnx", "cable.onnx", "cable.int8.onnx"):
        sidecar.artefact_of(built / name)


def test_a_sidecar_without_the_field_loads_and_a_broken_one_does_not(built):
    value = json.loads((built / "cable.json").read_text())
    del value["frame_size"]
    assert Sidecar.from_json(value).frame_size is None
    assert Sidecar.from_json(value).engine_frame_size == (64, 96)
    with pytest.raises(UserError, match="frame_size must be a list of 2"):
        Sidecar.from_json({**value, "frame_size": [720]})


def test_every_precision_builds_and_keeps_the_resize_in_fp32(folder, capsys):
    cases = [
        ("fp16", "720x1280", r"resize +float +3 "),  # one convolution, two bands of rows
        ("fp32", "720x1283", r"resize +float +8 "),  # six bands of columns instead
    ]
    for kind, size, expected in cases:
        assert build(folder, f"--{kind}", "--batch", "2", "--frame-size", size) == 0
        output = capsys.readouterr().out
        assert re.search(expected, output), output
        assert re.search(f"resize {size} to 64x96 inside cable.onnx: at most [01] grey level", output)
    assert build(folder, "--fp32", "--no-plan") == 0  # and back: the next build takes frames of the input size
    assert read_sidecar(folder / "cable.onnx").frame_size is None
    assert onnx.load(folder / "cable.onnx").graph.input[0].type.tensor_type.shape.dim[1].dim_value == 64
    assert build(folder, "--fp32", "--no-plan", "--frame-size", "64x96") == 0  # nothing to resize
    assert read_sidecar(folder / "cable.onnx").frame_size is None


def test_calibration_and_parity_are_those_of_the_graph_without_the_resize(folder):
    inside = read_sidecar(folder / "cable.plan")
    ranges = quantised_scales(folder / "cable.int8.onnx")
    assert build(folder, "--int8", "--no-plan") == 0
    assert quantised_scales(folder / "cable.int8.onnx") == ranges
    assert read_sidecar(folder / "cable.plan").parity == inside.parity


def quantised_scales(path):
    scales = (t for t in onnx.load(path).graph.initializer if t.name.endswith("/scale"))
    return {tensor.name: onnx.numpy_helper.to_array(tensor).tolist() for tensor in scales}


def test_frames_of_the_camera_go_in_as_they_are_and_others_are_refused(built):
    frame = camera_frames(count=1)[0]
    with runtime.load(built / "cable.onnx") as inside, runtime.load(built / "cable.unfused.onnx") as outside:
        assert (inside.session.frame_size, inside.session.input_size) == (CAMERA, (64, 96))
        assert outside.session.frame_size == (64, 96)
        result, wanted = inside(frame), outside(frame)
        assert result.anomaly_map.shape == (64, 96)
        assert result.image_score == pytest.approx(wanted.image_score, abs=SCORE_TOLERANCE)
        mirrored = inside(frame[:, ::-1])  # no contiguous array
        assert mirrored.image_score == inside(frame[:, ::-1].copy()).image_score
        assert [r.image_score for r in inside.batch([frame, frame])] == pytest.approx(
            [result.image_score] * 2, abs=1e-5
        )
        for other in (frame[:480, :640], frame[:, 1:], frame.transpose(1, 0, 2)):
            with pytest.raises(UserError, match=r"must be 720x1280 \(height x width\).*found \d+x\d+; rebuild"):
                inside(other)
        with pytest.raises(UserError, match=r"uint8 \(H, W, 3\)"):
            inside(frame.astype(np.float32))
        assert outside(frame[:480, :640]).verdict in ("good", "anomalous")


def test_a_sidecar_of_another_frame_size_is_refused(folder):
    sidecar = read_sidecar(folder / "cable.onnx")
    (folder / "cable.json").write_text(json.dumps(replace(sidecar, frame_size=(1080, 1920)).to_json()))
    with pytest.raises(UserError, match=r"frames uint8\[B, 1080, 1920, 3\].*found .*720, 1280, 3"):
        runtime.load(folder / "cable.onnx")


def test_infer_draws_the_map_over_the_frames_of_a_video(built, tmp_path, capsys):
    video = tmp_path / "line.avi"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"MJPG"), 10, CAMERA[::-1])
    for frame in camera_frames():
        writer.write(np.ascontiguousarray(frame[:, :, ::-1]))
    writer.release()
    out = tmp_path / "judged"
    assert run(infer, "--engine", built / "cable.onnx", "--source", video, "--output", out) == 0
    lines = [json.loads(line) for line in (out / "frames.jsonl").read_text().splitlines()]
    assert len(lines) == 2
    overlays = sorted((out / "overlays").iterdir())
    assert len(overlays) == 2 and Image.open(overlays[0]).size == CAMERA[::-1]
    capsys.readouterr()
    assert run(infer, "--engine", built / "cable.onnx", "--source", CALIBRATION_DATA, "--json") == 1
    judged = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(judged) == len(list(CALIBRATION_DATA.glob("*.jpg")))
    assert all(line["verdict"] == "none" and "must be 720x1280" in line["reason"] for line in judged)


def test_evaluation_reads_images_of_the_camera_as_they_are(built, tmp_path):
    images = []
    for index, frame in enumerate(camera_frames()):
        Image.fromarray(frame).save(tmp_path / f"{index}.png")
        images.append(LabelledImage(tmp_path / f"{index}.png", "good", None))
    inside, outside = (judge(built / name, images) for name in ("cable.onnx", "cable.unfused.onnx"))
    assert inside.maps.shape == (2, 64, 96)
    np.testing.assert_allclose(inside.scores, outside.scores, rtol=0, atol=SCORE_TOLERANCE)


def test_report_times_frames_of_the_camera(built, tmp_path, capsys):
    files = (built / "cable.unfused.onnx", built / "cable.onnx")
    assert run(report, *files, "--runs", "2", "--seconds", "1", "--output", tmp_path / "report") == 0
    rows = read_report(tmp_path / "report" / "report.json").rows
    assert [row.file for row in rows] == [file.name for file in files] and all(row.verdict for row in rows)


def test_the_command_for_an_onnx_alone(tmp_path, capsys):
    source = tmp_path / "cable.onnx"
    save_model(exported(small_config()).fused, source)
    (tmp_path / "camera").mkdir()
    out = tmp_path / "camera" / "cable.onnx"
    assert run(frame_size, source, "--frame-size", "480X640", "--out", out) == 0
    assert "resize 480x640 to 64x96 inside cable.onnx: at most 1 grey level" in capsys.readouterr().out
    with runtime.load(out) as detector:
        assert detector.session.frame_size == (480, 640)
        assert detector.threshold == 1.0
    refused = [
        ((out, "--frame-size", "480x640", "--out", tmp_path / "twice.onnx"), "the resize from 480x640 inside"),
        ((source, "--frame-size", "64x96", "--out", tmp_path / "same.onnx"), "must differ from the input size"),
        ((source, "--frame-size", "480x640", "--out", source), "another engine than the one it is made from"),
        ((source, "--frame-size", "480x640", "--out", tmp_path / "cable.plan"), "must end in .onnx"),
    ]
    for arguments, reason in refused:
        assert run(frame_size, *arguments) == 2
        assert reason in capsys.readouterr().err
    for command, arguments in [(fuse, (out,)), (precision, (out, "--fp16"))]:  # they come before the resize
        assert run(command, *arguments) == 2
        assert "start from the .pt or .unfused.onnx" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cable.onnx", "camera"]


def test_sizes_on_the_command_line(capsys):
    assert parse_frame_size("1080x1920") == (1080, 1920)
    for text in ("1080", "1080x1920x3", "0x640", "-1x5", "1e3x20", "99999x10", "\u0661x5", "x"):
        with pytest.raises(SystemExit) as refused:
            frame_size.main(["cable.onnx", "--out", "x.onnx", f"--frame-size={text}"])
        assert refused.value.code == 2
        assert "--frame-size: expected" in capsys.readouterr().err
