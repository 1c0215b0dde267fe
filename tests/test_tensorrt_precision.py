"""Precision told and counted. TensorRT 8.6 has no strong typing and builds on no machine without a device, so its
part is tested on what a network tells of itself; the counting in real networks is in test_tensorrt_build.
"""

from types import SimpleNamespace

import pytest
from onnx import TensorProto

from export.tensorrt_compat import PRECISION_FLAGS
from export.tensorrt_precision import (
    WANTED_TYPE,
    check_engine_layers,
    check_precision,
    constrain_layers,
    count_engine_layers,
    count_weighted_layers,
    onnx_tensor_types,
)
from runtime.errors import UserError
from tests.small_graphs import small_model


class FakeLayer:
    def __init__(self, name, kind, inputs, output):
        self.name, self.type, self.inputs, self.outputs = name, SimpleNamespace(name=kind), inputs, [output]
        self.num_inputs, self.num_outputs = len(inputs), 1
        self.precision = self.output_type = None

    @property
    def precision_is_set(self):
        return self.precision is not None

    def get_input(self, index):
        return self.inputs[index]

    def get_output(self, index):
        return self.outputs[index]

    def set_output_type(self, index, dtype):
        assert index == 0
        self.output_type = dtype


def fake_network(*rows):
    """Rows of (layer name, kind, input names, output name); every tensor says FLOAT, as before strong typing."""
    floating = SimpleNamespace(name="FLOAT")
    tensors = {}

    def tensor(name):
        return tensors.setdefault(name, SimpleNamespace(name=name, dtype=floating))

    layers = [FakeLayer(name, kind, [tensor(i) for i in inputs], tensor(output)) for name, kind, inputs, output in rows]
    module = SimpleNamespace(DataType=SimpleNamespace(FLOAT=floating, HALF=SimpleNamespace(name="HALF")))
    return SimpleNamespace(num_layers=len(layers), get_layer=layers.__getitem__, layers=layers), module


def test_tensor_types_of_an_onnx():
    types = onnx_tensor_types(small_model("fp16"))
    assert types["features_in"] == types["features_half"] == types["features_w"] == "float16"
    assert types["features_half_node"] == "float16"  # by the node's name too
    assert types["features"] == types["clamped"] == "float"
    assert types["frames"] == "uint8"
    assert onnx_tensor_types(small_model("int8"))["mixed_q"] == "int8"


def test_layers_without_strong_typing_get_the_types_of_the_onnx():
    network, module = fake_network(
        ("features_in_node", "CAST", ["image"], "features_in"),
        ("features_half_node", "CONVOLUTION", ["features_in"], "features_half"),
        ("mixed_half_node", "MATRIX_MULTIPLY", ["mixed_in", "w"], "(Unnamed Layer* 7) [Matrix Multiply]_output"),
        ("clamped_node", "ACTIVATION", ["mixed"], "clamped"),
        ("made by the parser", "ELEMENTWISE", ["clamped"], "unknown to the ONNX"),
    )
    constrain_layers(network, module, onnx_tensor_types(small_model("fp16")))
    set_types = [layer.precision.name for layer in network.layers]
    assert set_types == ["HALF", "HALF", "HALF", "FLOAT", "FLOAT"]
    assert [layer.output_type.name for layer in network.layers] == set_types
    assert count_weighted_layers(network, strongly_typed=False) == {"convolution half": 1, "matrix_multiply half": 1}


def test_quantised_layers_keep_their_freedom_without_strong_typing():
    network, module = fake_network(
        ("w", "CONSTANT", [], "features_w"),
        ("dqw", "DEQUANTIZE", ["features_w"], "features_w_dq"),
        ("turned", "SHUFFLE", ["features_w_dq"], "features_w_turned"),
        ("q", "QUANTIZE", ["image"], "features_q"),
        ("dq", "DEQUANTIZE", ["features_q"], "features_dq"),
        ("conv", "CONVOLUTION", ["features_dq", "features_w_turned"], "features"),
        ("tanh", "ACTIVATION", ["mixed"], "clamped"),
    )
    constrain_layers(network, module, onnx_tensor_types(small_model("int8")))
    assert [layer.name for layer in network.layers if layer.precision_is_set] == ["tanh"]
    counts = count_weighted_layers(network, strongly_typed=False)
    assert counts == {"convolution int8": 1, "quantize": 1, "dequantize": 2}


def test_int8_must_be_most_of_the_weighted_layers():
    check_precision({"convolution int8": 3, "convolution float": 2, "quantize": 9}, "int8", "a.onnx")
    with pytest.raises(UserError, match="found 2 convolution float, 2 convolution int8"):
        check_precision({"convolution int8": 2, "convolution float": 2, "quantize": 9}, "int8", "a.onnx")


def test_a_graph_without_weights_is_no_reduced_precision():
    check_precision({}, "fp32", "a.onnx")
    with pytest.raises(UserError, match="found no weighted layer"):
        check_precision({}, "fp16", "a.onnx")


def inspected(kind, text):
    return f'{{"Name": "x", "LayerType": "{kind}", "Inputs": [{{"Name": "i", "Format/Datatype": "{text}"}}]}}'


# the wordings of the inspector in 8.x and 10.x, as its users have posted them
INSPECTED = ", ".join(
    (
        inspected("CaskConvolution", "Channel major FP16 format where channel % 8 == 0"),
        inspected("CaskConvActPool", "Row major Int8 format"),
        inspected("CaskGemmConvolution", "Half"),
        inspected("Reformat", "Row major linear FP32"),
        inspected("MatrixMultiply", "Row major linear FP32"),
        inspected("Myelin", "Row major linear FP32"),
        inspected("conv", "N/A due to dynamic shapes"),
        '{"Name": "c", "LayerType": "Convolution", "Inputs": []}',
    )
)


def test_engine_layers_are_counted_by_type():
    counts = count_engine_layers(f'{{"Layers": [{INSPECTED}], "Bindings": ["frames"]}}')
    assert counts == {"engine half": 2, "engine int8": 1, "engine float": 1}
    assert count_engine_layers('{"Layers": ["names", "alone"], "Bindings": []}') == {}


def test_an_engine_without_the_wanted_type_is_caught():
    check_engine_layers({}, "fp16", "a.onnx")  # all in one opaque node: nothing is known
    check_engine_layers({"engine half": 1, "engine float": 5}, "fp16", "a.onnx")
    with pytest.raises(UserError, match="must compute in half; found 5 layers in float"):
        check_engine_layers({"engine float": 5}, "fp16", "a.onnx")


def test_the_words_of_a_type_agree():
    assert set(WANTED_TYPE) == {"fp32", "fp16", "int8"}
    numbers = (TensorProto.FLOAT16, TensorProto.INT8)  # an ONNX has them by number, the table by name
    assert {TensorProto.DataType.Name(number).lower() for number in numbers} == set(PRECISION_FLAGS)
