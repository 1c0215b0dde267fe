from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from runtime.errors import UserError
from runtime.metadata import read_sidecar
from runtime.onnxruntime_session import OnnxRuntimeSession
from tests.tiny_engine import write_tiny_engine


def test_runs_the_graph_and_says_what_it_is(tmp_path: Path):
    frames = np.random.default_rng(1).integers(0, 256, (3, 32, 48, 3)).astype(np.uint8)
    with OnnxRuntimeSession(write_tiny_engine(tmp_path), threads=1) as session:
        assert session.input_size == (32, 48) and session.max_batch >= 3
        assert "CPU, 1 thread" in session.device
        maps, scores = session.run(frames)
        assert set(session.stage_ms) == {"execute"} and session.stage_ms["execute"] > 0
    assert maps.dtype == scores.dtype == np.float32
    expected = frames.astype(np.float64).mean(axis=3) / 255 * 3
    np.testing.assert_allclose(maps, expected, rtol=1e-6)  # float32: three roundings of 6e-8
    np.testing.assert_array_equal(scores, maps.max(axis=(1, 2)))


def test_results_belong_to_the_caller(tmp_path: Path):
    with OnnxRuntimeSession(write_tiny_engine(tmp_path)) as session:
        maps, scores = session.run(np.full((1, 32, 48, 3), 100, np.uint8))
        kept_map, kept_score = maps.copy(), scores.copy()
        session.run(np.full((1, 32, 48, 3), 200, np.uint8))
        np.testing.assert_array_equal(maps, kept_map)
        np.testing.assert_array_equal(scores, kept_score)
        maps[:] = 0  # writable


def test_frames_that_are_not_contiguous_give_the_same(tmp_path: Path):
    frames = np.random.default_rng(2).integers(0, 256, (1, 32, 48, 3)).astype(np.uint8)
    with OnnxRuntimeSession(write_tiny_engine(tmp_path)) as session:
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
def test_wrong_frames_are_refused(tmp_path: Path, frames: np.ndarray):
    with OnnxRuntimeSession(write_tiny_engine(tmp_path)) as session, pytest.raises(UserError, match="frames must be"):
        session.run(frames)


def test_a_closed_session_says_so(tmp_path: Path):
    session = OnnxRuntimeSession(write_tiny_engine(tmp_path))
    session.close()
    session.close()
    with pytest.raises(UserError, match="closed"):
        session.run(np.zeros((1, 32, 48, 3), np.uint8))


@pytest.mark.parametrize("cut", [0, 10, 200])
def test_a_broken_onnx_is_refused(tmp_path: Path, cut: int):
    path = write_tiny_engine(tmp_path)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(UserError, match=r"tiny\.onnx must be an ONNX"):
        OnnxRuntimeSession(path)


def test_a_sidecar_of_another_size_is_refused_with_both_values(tmp_path: Path):
    path = write_tiny_engine(tmp_path)
    metadata = replace(read_sidecar(path), input_size=(64, 48))
    with pytest.raises(UserError, match=r"\[B, 64, 48, 3\].*found .*\[B, 32, 48, 3\]"):
        OnnxRuntimeSession(path, metadata=metadata)


def test_a_foreign_onnx_is_refused(tmp_path: Path):
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
        OnnxRuntimeSession(path)


def test_a_fixed_batch_is_refused(tmp_path: Path):
    path = write_tiny_engine(tmp_path)
    model = onnx.load(path)
    for tensor in (*model.graph.input, *model.graph.output):
        tensor.type.tensor_type.shape.dim[0].dim_value = 4
    onnx.save(model, path)
    with pytest.raises(UserError, match="inputs and outputs"):
        OnnxRuntimeSession(path)


def test_zero_threads_are_refused(tmp_path: Path):
    with pytest.raises(UserError, match="threads"):
        OnnxRuntimeSession(write_tiny_engine(tmp_path), threads=0)
