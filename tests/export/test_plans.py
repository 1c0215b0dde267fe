"""The graphs as a real TensorRT takes them: TensorRT-RTX compiles on a machine without a GPU."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from onnx import TensorProto

from export.calibration_data import read_calibration_data
from export.fuse import fuse, probe_frames
from export.graph.onnx_files import save_model, set_info
from export.graph.weighted_layers import WEIGHTED
from export.model.cflow import DetectorModule
from export.precisions.ranges import collect_ranges
from export.precisions.typing import to_fp16, to_int8
from export.to_onnx import export_detector
from export.trt.build import build_plan
from export.trt.compat import find_backend
from export.trt.options import BuildOptions
from tests.support.export_fixtures import CALIBRATION_DATA, config_of, info_of, seeded_model

pytest.importorskip("tensorrt_rtx", reason="compiling a plan without a GPU needs the package tensorrt-rtx")

SIZE = (64, 96)
BLOCKS = {"resnet18": 8, "mobilenet_v3_large": 2, "wide_resnet50_2": 2}  # more of them are the same again
CONVOLUTIONS = {"resnet18": 20, "mobilenet_v3_large": 61, "wide_resnet50_2": 53}  # of the encoder, up to the last tap
TYPES = {TensorProto.FLOAT: "float", TensorProto.FLOAT16: "half"}
DECODERS = 3


def typed_as(model, precision):
    if precision == "fp32":
        return model
    if precision == "fp16":
        return to_fp16(model)
    data = read_calibration_data(CALIBRATION_DATA)
    few = replace(data, paths=data.paths[:2])  # any ranges do for a build
    ranges = collect_ranges(model, few, SIZE, WEIGHTED, "minmax")
    return to_int8(model, ranges)


@pytest.fixture(scope="module", params=BLOCKS)
def fused(request):
    config = config_of(request.param, SIZE, coupling_blocks=BLOCKS[request.param])
    info = info_of(config)
    model = seeded_model(config, probe_frames(info))
    constants = torch.tensor([[0.0] * DECODERS, [1.0] * DECODERS])  # of the score; a plan's types do not depend on them
    unfused = export_detector(DetectorModule(model, constants))
    set_info(unfused, info)
    return request.param, fuse(unfused, info)[0]


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
    assert 0.8 * table < products < len(plan.data)
    assert len(plan.table().splitlines()) == len(plan.network) + 3  # a heading, the sum and the plan
