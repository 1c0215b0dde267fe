"""What ONNX Runtime and OpenVINO must do alike behind the session interface."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from runtime.common.errors import UserError
from runtime.common.files import sha256_of
from runtime.engines.cpu_session import CpuSession
from runtime.engines.onnxruntime_session import OnnxRuntimeSession
from runtime.engines.openvino_session import OpenVinoSession
from runtime.engines.sidecar import Artefact, read_sidecar, write_sidecar
from tests.support.export_fixtures import exported, small_config
from tests.support.tiny_engine import write_tiny_engine


@pytest.fixture(params=[OnnxRuntimeSession, OpenVinoSession], ids=lambda kind: kind.library)
def session_type(request: pytest.FixtureRequest) -> type[CpuSession]:
    return request.param


def test_runs_the_graph_and_says_what_it_is(session_type: type[CpuSession], tmp_path: Path):
    frames = np.random.default_rng(1).integers(0, 256, (3, 32, 48, 3)).astype(np.uint8)
    with session_type(write_tiny_engine(tmp_path), threads=1) as session:
        assert session.input_size == (32, 48) and session.max_batch >= 3
        assert session.device.startswith(session_type.library) and session.device.endswith("CPU, 1 thread")
        maps, scores = session.run(frames)
        assert set(session.stage_ms) == {"execute"} and session.stage_ms["execute"] > 0
    assert maps.dtype == scores.dtype == np.float32
    expected = frames.astype(np.float64).mean(axis=3) / 255 * 3
    np.testing.assert_allclose(maps, expected, rtol=1e-6)  # float32: three roundings of 6e-8
    np.testing.assert_array_equal(scores, maps.max(axis=(1, 2)))


def test_results_belong_to_the_caller(session_type: type[CpuSession], tmp_path: Path):
    with session_type(write_tiny_engine(tmp_path)) as session:
        maps, scores = session.run(np.full((1, 32, 48, 3), 100, np.uint8))
        kept_map, kept_score = maps.copy(), scores.copy()
        session.run(np.full((1, 32, 48, 3), 200, np.uint8))
        np.testing.assert_array_equal(maps, kept_map)
        np.testing.assert_array_equal(scores, kept_score)
        maps[:] = 0  # writable


def test_frames_that_are_not_contiguous_give_the_same(session_type: type[CpuSession], tmp_path: Path):
    frames = np.random.default_rng(2).integers(0, 256, (1, 32, 48, 3)).astype(np.uint8)
    with session_type(write_tiny_engine(tmp_path)) as session:
        mirrored = session.run(frames[:, :, ::-1])[0]
        np.testing.assert_array_equal(mirrored, session.run(frames[:, :, ::-1].copy())[0])


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((1, 32, 48, 3), np.float32),
        np.zeros((1, 48, 32, 3), np.uint8),
        np.zeros((32, 48, 3), np.uint8),
        np.zeros((0, 32, 48, 3), np.uint8),
        np.zeros((33, 32, 48, 3), np.uint8),
    ],
)
def test_wrong_frames_are_refused(session_type: type[CpuSession], tmp_path: Path, frames: np.ndarray):
    with session_type(write_tiny_engine(tmp_path)) as session, pytest.raises(UserError, match="frames must be"):
        session.run(frames)


def test_a_closed_session_says_so(session_type: type[CpuSession], tmp_path: Path):
    session = session_type(write_tiny_engine(tmp_path))
    session.close()
    session.close()
    with pytest.raises(UserError, match="closed"):
        session.run(np.zeros((1, 32, 48, 3), np.uint8))


@pytest.mark.parametrize("cut", [0, 10, 200])
def test_a_broken_onnx_is_refused(session_type: type[CpuSession], tmp_path: Path, cut: int):
    path = write_tiny_engine(tmp_path)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(UserError, match=r"tiny\.onnx must be an ONNX"):
        session_type(path)


def test_a_sidecar_of_another_size_is_refused_with_both_values(session_type: type[CpuSession], tmp_path: Path):
    path = write_tiny_engine(tmp_path)
    sidecar = replace(read_sidecar(path), input_size=(64, 48))
    with pytest.raises(UserError, match=r"\[B, 64, 48, 3\].*found .*\[B, 32, 48, 3\]"):
        session_type(path, sidecar=sidecar)


def test_a_foreign_onnx_is_refused(session_type: type[CpuSession], tmp_path: Path):
    path = write_tiny_engine(tmp_path)
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "foreign",
        [value("x", TensorProto.FLOAT, [1])],
        [value("y", TensorProto.FLOAT, [1])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    with pytest.raises(UserError, match="inputs and outputs"):
        session_type(path)


def test_a_fixed_batch_is_refused(session_type: type[CpuSession], tmp_path: Path):
    path = write_tiny_engine(tmp_path)
    model = onnx.load(path)
    for tensor in (*model.graph.input, *model.graph.output):
        tensor.type.tensor_type.shape.dim[0].dim_value = 4
    onnx.save(model, path)
    with pytest.raises(UserError, match="inputs and outputs"):
        session_type(path)


def test_zero_threads_are_refused(session_type: type[CpuSession], tmp_path: Path):
    with pytest.raises(UserError, match="threads"):
        session_type(write_tiny_engine(tmp_path), threads=0)


def test_a_foreign_type_is_named(session_type: type[CpuSession], tmp_path: Path):
    path = write_tiny_engine(tmp_path)
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT
    onnx.save(model, path)
    with pytest.raises(UserError, match=r"frames uint8\[B, 32, 48, 3\].*found frames float32\[B, 32, 48, 3\]"):
        session_type(path)


def test_the_same_bits_after_other_frames_and_batches(session_type: type[CpuSession], tmp_path: Path):
    path, frames = _small_flow(tmp_path)
    with session_type(path, threads=2) as session:
        before = session.run(frames[:1])
        together = session.run(frames)
        session.run(frames[1:])
        after, again = session.run(frames[:1]), session.run(frames)
    for left, right in ((before, after), (together, again)):
        assert [array.tobytes() for array in left] == [array.tobytes() for array in right]
    for alone, batched in zip(before, together, strict=True):
        # a batch may sum in another order: float32 rounding, which a flow of two blocks multiplies tenfold or so
        np.testing.assert_allclose(alone[0], batched[0], atol=2e-5)


def test_equals_a_float64_evaluation(session_type: type[CpuSession], tmp_path: Path):
    path, frames = _small_flow(tmp_path)
    expected = exported(small_config())
    with session_type(path) as session:
        maps, scores = session.run(frames)
    # bfloat16 products, which OpenVINO takes where it is not told otherwise, would be off by 1e-2
    np.testing.assert_allclose(maps, expected.anomaly_map, atol=2e-5)
    np.testing.assert_allclose(scores, expected.image_score, atol=2e-5)


def _small_flow(folder: Path) -> tuple[Path, np.ndarray]:
    """A fused detector of two taps and two blocks, with the frames that it was evaluated on in float64."""
    detector = exported(small_config())
    path = folder / "cable.onnx"
    onnx.save(detector.fused, path)
    write_sidecar(path, replace(detector.info.sidecar, artefacts=(Artefact("onnx", "fp32", sha256_of(path)),)))
    return path, detector.frames
