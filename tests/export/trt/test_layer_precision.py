"""Precision told and counted. TensorRT 8.6 has no strong typing and builds on no machine without a device, so its
part is tested on what a network tells of itself; the counting in real networks is in test_tensorrt_build.
"""

import pytest
from onnx import TensorProto

from export.trt.compat import PRECISION_FLAGS
from export.trt.precision import (
    WANTED_TYPE,
    check_precision,
    constrain_layers,
    count_weighted_layers,
    layers_of,
    onnx_tensor_types,
)
from runtime.common.errors import UserError
from tests.support.fake_tensorrt import V8, network_of, recorded_library
from tests.support.small_graphs import small_model


def test_tensor_types_of_an_onnx():
    types = onnx_tensor_types(small_model("fp16"))
    assert types["features_in"] == types["features_half"] == types["features_w"] == "float16"
    assert types["features_half_node"] == "float16"  # by the node's name too
    assert types["features"] == types["clamped"] == "float"
    assert types["frames"] == "uint8"
    assert onnx_tensor_types(small_model("int8"))["mixed_q"] == "int8"


def test_layers_without_strong_typing_get_the_types_of_the_onnx():
    library = recorded_library(V8)
    network = network_of(
        library,
        ("features_in_node", "CAST", ["image"], "features_in"),
        ("features_half_node", "CONVOLUTION", ["features_in"], "features_half"),
        ("mixed_half_node", "MATRIX_MULTIPLY", ["mixed_in", "w"], "(Unnamed Layer* 7) [Matrix Multiply]_output"),
        ("clamped_node", "ACTIVATION", ["mixed"], "clamped"),
        ("made by the parser", "ELEMENTWISE", ["clamped"], "unknown to the ONNX"),
    )
    constrain_layers(network, library, onnx_tensor_types(small_model("fp16")))
    set_types = [layer.precision.name for layer in layers_of(network)]
    assert set_types == ["HALF", "HALF", "HALF", "FLOAT", "FLOAT"]
    assert [layer._output_type.name for layer in layers_of(network)] == set_types
    assert count_weighted_layers(network, strongly_typed=False) == {"convolution half": 1, "matrix_multiply half": 1}


def test_quantised_layers_keep_their_freedom_without_strong_typing():
    library = recorded_library(V8)
    network = network_of(
        library,
        ("w", "CONSTANT", [], "features_w"),
        ("dqw", "DEQUANTIZE", ["features_w"], "features_w_dq"),
        ("turned", "SHUFFLE", ["features_w_dq"], "features_w_turned"),
        ("q", "QUANTIZE", ["image"], "features_q"),
        ("dq", "DEQUANTIZE", ["features_q"], "features_dq"),
        ("conv", "CONVOLUTION", ["features_dq", "features_w_turned"], "features"),
        ("tanh", "ACTIVATION", ["mixed"], "clamped"),
    )
    constrain_layers(network, library, onnx_tensor_types(small_model("int8")))
    assert [layer.name for layer in layers_of(network) if layer.precision_is_set] == ["tanh"]
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


def test_the_words_of_a_type_agree():
    assert set(WANTED_TYPE) == {"fp32", "fp16", "int8"}
    numbers = (TensorProto.FLOAT16, TensorProto.INT8)  # an ONNX has them by number, the table by name
    assert {TensorProto.DataType.Name(number).lower() for number in numbers} == set(PRECISION_FLAGS)
