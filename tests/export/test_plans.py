"""The graphs as a real TensorRT takes them: TensorRT-RTX compiles on a machine without a GPU."""

from collections import Counter
from dataclasses import replace

import pytest
from onnx import TensorProto

from export.calibration_data import read_calibration_data
from export.graph.onnx_files import get_info, save_model
from export.graph.weighted_layers import WEIGHTED
from export.precisions.ranges import collect_ranges
from export.precisions.typing import to_fp16, to_int8
from export.trt.build import build_plan
from export.trt.compat import find_backend
from export.trt.options import BuildOptions
from tests.support.export_fixtures import CALIBRATION_DATA, exported, small_config, three_taps

pytest.importorskip("tensorrt_rtx", reason="compiling a plan without a GPU needs the package tensorrt-rtx")

# encoder: blocks of each decoder; more of them are the same again
BLOCKS = {"resnet18": 8, "mobilenet_v3_large": 2, "efficientnet_lite0": 2, "wide_resnet50_2": 2}
ENCODERS = [*list(BLOCKS)[:3], pytest.param("wide_resnet50_2", marks=pytest.mark.slow)]
# of the encoder, up to the last tap
CONVOLUTIONS = {"resnet18": 20, "mobilenet_v3_large": 61, "efficientnet_lite0": 33, "wide_resnet50_2": 53}
TYPES = {TensorProto.FLOAT: "float", TensorProto.FLOAT16: "half"}
DECODERS = 3


def typed_as(model, precision):
    if precision == "fp32":
        return model
    if precision == "fp16":
        return to_fp16(model)
    data = read_calibration_data(CALIBRATION_DATA)
    few = replace(data, paths=data.paths[:2])  # any ranges do for a build
    ranges = collect_ranges(model, few, get_info(model, "").sidecar.input_size, WEIGHTED, "minmax")
    return to_int8(model, ranges)


@pytest.fixture(scope="module", params=ENCODERS)
def fused(request):
    return request.param, exported(three_taps(request.param, BLOCKS[request.param])).fused


def types_of_products(model):
    """Count the model's products in the ONNX itself, encoder and decoders apart, by the type of their weight."""
    weights = {item.name: TYPES.get(item.data_type, "") for item in model.graph.initializer}
    dequantised = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    counts = {"encoder": Counter(), "decoders": Counter()}
    for node in model.graph.node:
        if node.op_type in ("Conv", "Gemm", "MatMul") and not node.name.startswith("score/"):
            part = "encoder" if node.name.startswith("encoder/") else "decoders"
            counts[part]["int8" if node.input[1] in dequantised else weights[node.input[1]]] += 1
    return counts


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("halved", [(), ("layer1",)], ids=str)
def test_pooled_taps_and_a_score_by_place_are_compiled(precision, halved, tmp_path):
    model = exported(small_config(score="place_deviation", pooled=("layer1", "layer2"), halved=halved)).fused
    assert Counter(node.op_type for node in model.graph.node)["AveragePool"] == 2
    path = tmp_path / "cable.onnx"
    save_model(typed_as(model, precision), path)
    options = BuildOptions(precision=precision, max_batch=2, compute_capabilities=("8.6",))
    assert build_plan(path, options, find_backend("tensorrt_rtx")).layers


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_builds_with_the_types_that_the_graph_carries(fused, precision, tmp_path):
    encoder, model = fused
    typed = typed_as(model, precision)
    path = tmp_path / "cable.onnx"
    save_model(typed, path)
    options = BuildOptions(precision=precision, max_batch=2, compute_capabilities=("8.6",))
    plan = build_plan(path, options, find_backend("tensorrt_rtx"))

    weighted = Counter()
    for name, count in plan.layers.items():
        if "quantize" not in name:
            weighted[name.split()[1]] += count
    carried = types_of_products(typed)
    assert weighted == carried["encoder"] + carried["decoders"]
    word = {"fp32": "float", "fp16": "half", "int8": "int8"}[precision]
    assert carried["encoder"] == {word: CONVOLUTIONS[encoder]}
    assert carried["decoders"][word] >= DECODERS * BLOCKS[encoder] * 2  # the subnets' at least
    if precision == "int8":
        assert set(carried["decoders"]) == {"int8", "half"}  # the permutations stay out of INT8

    table = sum(row.weight_bytes for row in plan.network)
    constants = sum(len(item.raw_data) for item in typed.graph.initializer)
    # the parser adds shapes of its own, and to each quantised weight a zero point for every channel
    assert table == pytest.approx(constants, rel=0.03 if precision == "int8" else 0.01)
    products = sum(row.weight_bytes for row in plan.network if row.kind in ("convolution", "matrix multiply"))
    # a small network has as many scales and biases for fewer weights
    assert (0.7 if encoder == "efficientnet_lite0" else 0.8) * table < products < len(plan.data)
    assert len(plan.table().splitlines()) == len(plan.network) + 3  # a heading, the sum and the plan
