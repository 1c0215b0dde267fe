"""Graphs that fuzzing found: no library's own exception comes through, and OpenVINO sees none that is not ONNX's."""

from pathlib import Path

import pytest

import runtime
from runtime.common.errors import UserError
from runtime.engines.any_onnx import open_openvino
from runtime.engines.backends import CPU_BACKENDS
from runtime.engines.openvino_session import openvino_core
from runtime.engines.sidecar import write_sidecar
from tests.support.tiny_engine import tiny_model, tiny_sidecar

SIZE, TAPS = (32, 48), ("a", "b", "c")


def described(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    write_sidecar(path, tiny_sidecar(path, SIZE, TAPS))
    return path


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_names_that_are_no_text_are_refused_in_one_line(tmp_path: Path, backend: str) -> None:
    content = tiny_model(SIZE, 3.0).SerializeToString().replace(b"frames", b"fr\xe8mes")
    with pytest.raises(UserError, match=r"tiny\.onnx must be an ONNX that (OpenVINO|ONNX Runtime) opens"):
        runtime.load(described(tmp_path / "tiny.onnx", content), backend=backend)


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_an_input_without_a_name_is_refused_in_one_line(tmp_path: Path, backend: str) -> None:
    model = tiny_model(SIZE, 3.0)
    model.graph.input.add()
    with pytest.raises(UserError, match=r"tiny\.onnx must"):
        runtime.load(described(tmp_path / "tiny.onnx", model.SerializeToString()), backend=backend)


def test_openvino_is_not_given_a_graph_that_onnx_runtime_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenVINO's own reader checks less of it."""
    model = tiny_model(SIZE, 3.0)
    model.graph.node[2].input.append("scale")  # one more than a product has
    monkeypatch.setattr(type(openvino_core()), "read_model", lambda *_: pytest.fail("given to OpenVINO"))
    with pytest.raises(UserError, match=r"tiny\.onnx must be an ONNX that OpenVINO opens; found .*ONNXRuntimeError"):
        runtime.load(described(tmp_path / "tiny.onnx", model.SerializeToString()), backend="openvino")


def test_any_graph_that_onnx_runtime_refuses_is_not_given_to_openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(SIZE, 3.0)
    model.graph.node[2].input.append("scale")
    monkeypatch.setattr(type(openvino_core()), "read_model", lambda *_: pytest.fail("given to OpenVINO"))
    with pytest.raises(Exception, match="ONNXRuntimeError"):
        open_openvino(model.SerializeToString(), 1, "float32", (1, *SIZE, 3))
