"""Encoders that pad by reflection, through the rewrites and both precisions."""

import numpy as np
import onnx
import pytest

from export.model.cflow import ModelConfig
from export.precisions.typing import to_fp16, to_int8
from tests.support.export_fixtures import exported, run_model
from tests.support.onnx_inspection import HALF, nodes_of, run_as_written, types_of, weights_of

MAP_TOLERANCE = 1e-5  # in score units: float32 rounding leaves 3e-7 to 2e-6
PADDED = 5  # convolutions: the stem and four of layer1, all of 3x3 or larger


@pytest.fixture(scope="module")
def case():
    return exported(ModelConfig("resnet18_reflect", ("layer1",), (32, 48), coupling_blocks=1))


@pytest.fixture(scope="module")
def int8(case):
    convolutions = nodes_of(case.fused, "Conv")
    ranges = dict.fromkeys((node.input[0] for node in convolutions), (-4.0, 4.0))
    return to_int8(case.fused, ranges | {convolutions[0].input[0]: (-160.0, 160.0)})  # grey levels from their mean


def makers_of(model):
    return {output: node for node in model.graph.node for output in node.output}


def test_the_fused_graph_agrees_with_float64(case):
    anomaly_map, _ = run_model(case.fused, case.frames)
    assert case.anomaly_map.std() > 0.01  # a saturated map would agree with anything
    assert np.abs(anomaly_map - case.anomaly_map).max() <= MAP_TOLERANCE
    modes = [attribute.s for node in nodes_of(case.fused, "Pad") for attribute in node.attribute]
    assert modes == [b"reflect"] * PADDED
    assert case.fused.opset_import[0].version == 17
    onnx.checker.check_model(case.fused, full_check=True)


def test_fp16_pads_in_fp16_between_two_casts(case):
    model = to_fp16(case.fused)
    types = types_of(model)
    assert all({types[name] for name in (node.input[0], *node.output)} == {HALF} for node in nodes_of(model, "Pad"))
    casts = [node.name for node in nodes_of(model, "Cast") if node.name.startswith("encoder/")]
    assert len(casts) == 2  # the frames on the way in, the tap on the way out


def test_int8_reads_what_is_quantised_on_both_sides_of_the_padding(int8):
    makers, weights = makers_of(int8), weights_of(int8)
    pads = nodes_of(int8, "Pad")
    assert len(pads) == PADDED
    for convolution in (node for node in nodes_of(int8, "Conv") if node.name.startswith("encoder/")):
        after = makers[convolution.input[0]]
        pad = makers[makers[after.input[0]].input[0]]
        before = makers[pad.input[0]]
        assert [node.op_type for node in (after, pad, before)] == ["DequantizeLinear", "Pad", "DequantizeLinear"]
        assert weights[after.input[1]] == weights[before.input[1]]
    additions = [node for node in nodes_of(int8, "Add") if node.name.startswith("encoder/")]
    assert len(additions) == 2
    for addition in additions:  # the identity is that which was quantised before the padding
        assert any(name == pad.input[0] for name in addition.input for pad in pads)


def test_the_second_rounding_of_int8_changes_no_bit(case, int8):
    pad = nodes_of(int8, "Pad")[1]
    padded, again = run_as_written(int8, case.frames, pad.output[0], f"{pad.output[0]}/int8/dq")
    assert np.unique(padded).size > 20
    np.testing.assert_array_equal(padded, again)
