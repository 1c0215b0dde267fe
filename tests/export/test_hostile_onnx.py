"""`build_engine` on files that are no model of ours, or say so and are not: one line each, and nothing is left."""

import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from export import build_engine
from export.graph.onnx_files import INFO_KEY, set_info
from runtime.common.errors import run_command
from tests.support.export_fixtures import exported, info_of, small_config
from tests.support.small_graphs import small_model

Change = Callable[[onnx.ModelProto], None]


def ours() -> onnx.ModelProto:
    """A whole unfused export, as the command takes it."""
    model = onnx.ModelProto()
    model.CopyFrom(exported(small_config()).unfused)
    return model


def first(model: onnx.ModelProto, kind: str) -> onnx.NodeProto:
    return next(node for node in model.graph.node if node.op_type == kind)


def without_inputs(model: onnx.ModelProto) -> None:
    del model.graph.input[:]


def without_outputs(model: onnx.ModelProto) -> None:
    del model.graph.output[:]


def a_cycle(model: onnx.ModelProto) -> None:
    first(model, "Conv").input[0] = model.graph.output[0].name


def without_weights(model: onnx.ModelProto) -> None:
    del model.graph.initializer[:]


def weights_of_another_type(model: onnx.ModelProto) -> None:
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            tensor.data_type = TensorProto.INT64


def an_unknown_type(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].data_type = 999


def huge_weights(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].dims[:] = [2**40, 2**20]


def negative_sizes(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].dims[:] = [-4, -4]


def cut_weights(model: onnx.ModelProto) -> None:
    for tensor in model.graph.initializer:
        tensor.raw_data = tensor.raw_data[:3]


def a_huge_input(model: onnx.ModelProto) -> None:
    for dimension in model.graph.input[0].type.tensor_type.shape.dim:
        dimension.dim_value = 2**60


def a_float_input(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT


def another_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 9999


def no_opset(model: onnx.ModelProto) -> None:
    del model.opset_import[:]


def another_ir(model: onnx.ModelProto) -> None:
    model.ir_version = 999


def unknown_operators(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        node.op_type, node.domain = "Surprise", "somebody.else"


def text_that_is_none(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        node.name, node.doc_string = "\x00\x1b[2J\u202e", "x" * 100_000


def one_name_twice(model: onnx.ModelProto) -> None:
    model.graph.node[3].output[0] = model.graph.node[2].output[0]


def without_attributes(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        del node.attribute[:]


def nothing_but_a_name(model: onnx.ModelProto) -> None:
    del model.graph.node[1:]


def weights_elsewhere(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../../etc/passwd")


def not_a_number(model: onnx.ModelProto) -> None:
    tensor = next(t for t in model.graph.initializer if t.data_type == TensorProto.FLOAT and len(t.dims) > 1)
    values = np.full_like(numpy_helper.to_array(tensor), np.nan)
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def other_facts(**facts: object) -> Change:
    def change(model: onnx.ModelProto) -> None:
        stored = json.loads(next(p.value for p in model.metadata_props if p.key == INFO_KEY))
        helper.set_model_props(model, {INFO_KEY: json.dumps({**stored, **facts})})

    return change


def facts_that_are_deep(model: onnx.ModelProto) -> None:
    helper.set_model_props(model, {INFO_KEY: "[" * 100_000})


def facts_twice(model: onnx.ModelProto) -> None:
    model.metadata_props.add(key=INFO_KEY, value="{}")
    model.metadata_props.insert(0, onnx.StringStringEntryProto(key=INFO_KEY, value='"no facts"'))


CHANGES: list[Change] = [
    without_inputs, without_outputs, a_cycle, without_weights, weights_of_another_type, an_unknown_type, huge_weights,
    negative_sizes, cut_weights, a_huge_input, a_float_input, another_opset, no_opset, another_ir, unknown_operators,
    one_name_twice, without_attributes, nothing_but_a_name, weights_elsewhere, not_a_number,
    facts_that_are_deep, facts_twice,
]  # fmt: skip
FACTS = {
    "more blocks": other_facts(blocks=7),
    "no blocks": other_facts(blocks=0),
    "blocks in words": other_facts(blocks="two"),
    "blocks without end": other_facts(blocks=10**40),
    "no sidecar": other_facts(sidecar=None),
    "a list for a sidecar": other_facts(sidecar=[1]),
    "a wrong sidecar": other_facts(sidecar={"schema": "cflow-edge/sidecar/1"}),
    "another size": other_facts(sidecar={**info_of(small_config()).sidecar.to_json(), "input_size": [1, 16384]}),
    "already fused": other_facts(fused=True),
}


@pytest.fixture
def refusal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[[bytes], str]:
    def build(content: bytes) -> str:
        path = tmp_path / "cable.unfused.onnx"
        path.write_bytes(content)
        arguments = [str(path), "--fp16", "--no-plan", "--calibration-data", str(tmp_path / "none")]
        assert run_command(build_engine.main, arguments) == 2
        said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        assert len(said) == 1 and len(said[0]) < 1500, said
        assert [p.name for p in tmp_path.iterdir()] == [path.name]
        return said[0]

    return build


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_graph_that_says_it_is_ours_and_is_not(change: Change, refusal: Callable[[bytes], str]) -> None:
    model = ours()
    change(model)
    assert " must " in refusal(model.SerializeToString())


@pytest.mark.parametrize("change", FACTS.values(), ids=list(FACTS))
def test_facts_that_are_none(change: Change, refusal: Callable[[bytes], str]) -> None:
    model = ours()
    change(model)
    assert refusal(model.SerializeToString())


def _zip() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("model.onnx", b"x" * 1000)
    return content.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00" * 1000,
        b"not a model\n" * 100,
        _zip(),
        bytes(range(256)) * 20,
        b"\x08\x08",
        b"\x3a\x00",
        b"\xff" * 999,
    ],
    ids=["empty", "zeros", "text", "zip", "bytes", "a version", "an empty graph", "ones"],
)
def test_files_that_are_no_onnx(content: bytes, refusal: Callable[[bytes], str]) -> None:
    assert "must be an ONNX" in refusal(content) or "written by export.to_onnx" in refusal(content)


def test_cut_at_any_place(refusal: Callable[[bytes], str]) -> None:
    whole = ours().SerializeToString()
    for share in (0.001, 0.1, 0.5, 0.9, 0.999, 0.9999999):
        assert "must be" in refusal(whole[: int(share * len(whole))])


def test_a_graph_of_somebody_else(refusal: Callable[[bytes], str]) -> None:
    assert "written by export.to_onnx" in refusal(small_model().SerializeToString())
    model = small_model()
    info = info_of(small_config())
    set_info(model, replace(info, data_origin="elsewhere"))
    assert asdict(info)["blocks"] == 2
    assert "must match" in refusal(model.SerializeToString())
