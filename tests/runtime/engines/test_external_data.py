"""Weights outside of an ONNX: wherever a tensor can stand, refused by both libraries' sessions, before they open it."""

import random
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import runtime
from runtime.common.errors import UserError
from runtime.engines.external_data import has_external_data, refuse_external_data
from runtime.engines.sidecar import MAP_NAME, write_sidecar
from tests.support.small_graphs import small_model
from tests.support.tiny_engine import tiny_model, tiny_sidecar, write_tiny_engine

BACKENDS = ["onnxruntime", "openvino"]


def outside(name: str = "w") -> TensorProto:
    tensor = numpy_helper.from_array(np.ones(4, np.float32), name)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="w.bin")
    return tensor


def sparse() -> onnx.SparseTensorProto:
    return helper.make_sparse_tensor(outside(), numpy_helper.from_array(np.arange(4), "indices"), [8])


def graph(**parts: object) -> onnx.GraphProto:
    return onnx.GraphProto(name="inner", **parts)


def node(attribute: onnx.AttributeProto) -> onnx.NodeProto:
    return onnx.NodeProto(op_type="Constant", attribute=[attribute])


HIDDEN = {
    "initializer": onnx.ModelProto(graph=graph(initializer=[outside()])),
    "sparse initializer": onnx.ModelProto(graph=graph(sparse_initializer=[sparse()])),
    "attribute": onnx.ModelProto(graph=graph(node=[node(onnx.AttributeProto(name="value", t=outside()))])),
    "attributes": onnx.ModelProto(graph=graph(node=[node(onnx.AttributeProto(name="v", tensors=[outside()]))])),
    "sparse attribute": onnx.ModelProto(graph=graph(node=[node(onnx.AttributeProto(sparse_tensor=sparse()))])),
    "branch": onnx.ModelProto(
        graph=graph(node=[node(onnx.AttributeProto(g=graph(initializer=[outside()])))]),
    ),
    "function": onnx.ModelProto(
        functions=[
            onnx.FunctionProto(name="f", node=[node(onnx.AttributeProto(graphs=[graph(initializer=[outside()])]))])
        ]
    ),
    "training": onnx.ModelProto(training_info=[onnx.TrainingInfoProto(algorithm=graph(initializer=[outside()]))]),
}


@pytest.mark.parametrize("place", HIDDEN)
def test_it_is_found_wherever_a_tensor_can_stand(place: str) -> None:
    assert has_external_data(HIDDEN[place].SerializeToString())


def test_what_holds_its_weights_passes(tmp_path: Path) -> None:
    for precision in ("fp32", "fp16", "int8"):
        assert not has_external_data(small_model(precision).SerializeToString())
    refuse_external_data(write_tiny_engine(tmp_path))


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_engine_with_changed_weights_beside_it_does_not_open(tmp_path: Path, backend: str) -> None:
    model = tiny_model((32, 48), 3.0)
    model.graph.initializer.append(numpy_helper.from_array(np.ones((32, 48), np.float32), "gain"))
    model.graph.node[2].output[0] = "plain"
    model.graph.node.insert(3, helper.make_node("Mul", ["plain", "gain"], [MAP_NAME]))
    path = tmp_path / "tiny.onnx"
    onnx.save(model, path)
    write_sidecar(path, tiny_sidecar(path, (32, 48), ("a", "b", "c")))
    frame = np.full((32, 48, 3), 255, np.uint8)
    with runtime.load(path, backend=backend) as detector:
        assert detector(frame).image_score == pytest.approx(3.0)
    onnx.save(model, path, save_as_external_data=True, location="w.bin", size_threshold=100)
    write_sidecar(path, tiny_sidecar(path, (32, 48), ("a", "b", "c")))
    (tmp_path / "w.bin").write_bytes(np.full(32 * 48, 0.01, np.float32).tobytes())  # nothing is anomalous any more
    with pytest.raises(UserError, match=r"tiny\.onnx must hold all of its weights.*external data"):
        runtime.load(path, backend=backend)


@pytest.mark.parametrize(
    "content", [b"", b"\x00", b"\x0b\x0c", b"\x3a\xff\xff\xff\xff\x0f", b"\x80" * 20, b"\x3a\x05\x0a"]
)
def test_broken_messages_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.onnx").write_bytes(content)
    with pytest.raises(UserError, match=r"x\.onnx must be"):
        refuse_external_data(tmp_path / "x.onnx")


def test_a_file_larger_than_any_onnx_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "x.onnx").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(UserError, match="must be an ONNX file of 1 to 2147483647 bytes; found 1099511627776"):
        refuse_external_data(tmp_path / "x.onnx")


def with_operator_set(path: Path, number: int) -> Path:
    model = tiny_model((32, 48), 3.0)
    model.opset_import[0].version = number
    onnx.save(model, path)
    write_sidecar(path, tiny_sidecar(path, (32, 48), ("a", "b", "c")))
    return path


@pytest.mark.parametrize("number", [1001, 4000])
def test_an_operator_set_that_there_cannot_be_is_refused_unopened(tmp_path: Path, number: int) -> None:
    path = with_operator_set(tmp_path / "tiny.onnx", number)
    with pytest.raises(UserError, match=r"tiny\.onnx must use operator sets up to 1000; found \d+"):
        refuse_external_data(path)


@pytest.mark.parametrize("backend", [*BACKENDS, "onnxruntime-rtx"])
def test_no_library_is_given_an_operator_set_that_there_cannot_be(tmp_path: Path, backend: str) -> None:
    with pytest.raises(UserError, match="operator sets up to 1000; found 1001"):
        runtime.load(with_operator_set(tmp_path / "tiny.onnx", 1001), backend=backend)


def test_damage_is_told_or_harmless() -> None:
    """Whatever the bytes: an answer or a `ValueError`, and never "none" where protobuf reads external data."""
    rng = random.Random(0)
    sources = [model.SerializeToString() for model in HIDDEN.values()] + [small_model().SerializeToString()[:3000]]
    answers = set()
    for _ in range(4000):
        data = bytearray(rng.choice(sources))
        for _ in range(rng.randrange(4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        data = data[: rng.randrange(len(data) + 1)] if rng.random() < 0.2 else data
        try:
            found = has_external_data(bytes(data))
        except ValueError:
            found = None
        answers.add(found)
        if found is False:
            assert not _read_by_protobuf(bytes(data)), bytes(data)
    assert answers == {True, False, None}


def _read_by_protobuf(data: bytes) -> bool:
    """Tell whether protobuf's own reader finds a tensor outside of the file."""
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except Exception:  # of the implementation's own types
        return False
    return any(
        tensor.data_location == TensorProto.EXTERNAL for tensor in onnx.external_data_helper._get_all_tensors(model)
    )
