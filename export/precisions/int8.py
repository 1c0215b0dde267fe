"""INT8 in the graph: symmetric Q/DQ in front of weighted layers, weights per output channel, biases FP32.

What is left out of it becomes FP16 (as in `fp16`): the layers that the caller names. At residual additions
the identity alone is quantised, so that the convolution beside it can take the addition up.
"""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from export.graph.weighted_layers import WEIGHTED, in_encoder, is_permutation, is_product
from export.passes.rewrite import producer
from export.precisions.fp16 import type_layers, type_products
from export.precisions.ranges import Range
from runtime.common.errors import UserError

INT8_MAX = 127  # symmetric: -128 is not used


def weighted_layers(model: onnx.ModelProto) -> list[str]:
    """Return the names of the layers that can be INT8, in the order of the graph."""
    return [node.name for node in gs.import_onnx(model).nodes if node.op in WEIGHTED]


def permutation_layers(model: onnx.ModelProto) -> frozenset[str]:
    """Return the names of the products that mix the decoders' state, whose range a defect leaves first."""
    return frozenset(node.name for node in gs.import_onnx(model).nodes if is_permutation(node))


def quantise(graph: gs.Graph, ranges: Mapping[str, Range], left_out: Collection[str]) -> None:
    """Make `graph` INT8 but for the layers named in `left_out`, which become FP16.

    `ranges` maps tensor names to (lowest, highest). Raises `UserError` for a name that is no weighted layer, a
    tensor without a range, or weights that are computed.
    """
    weighted = [node for node in graph.nodes if node.op in WEIGHTED]
    unknown = set(left_out) - {node.name for node in weighted}
    if unknown:
        raise UserError("a layer to keep out of INT8 must be a weighted layer of the graph", ", ".join(sorted(unknown)))
    quantised: dict[int, gs.Tensor] = {}
    for node in weighted:
        if node.name not in left_out:
            _quantise_layer(graph, node, ranges, quantised)
    _quantise_identities(graph, quantised)
    free = [node for node in weighted if node.name in left_out]
    type_layers(graph, (node for node in free if in_encoder(node)))
    type_products(graph, [node for node in free if is_product(node)])


def _quantise_layer(
    graph: gs.Graph, node: gs.Node, ranges: Mapping[str, Range], quantised: dict[int, gs.Tensor]
) -> None:
    _quantise_input(graph, node.inputs[0], ranges, quantised)
    weight = node.inputs[1]
    if not isinstance(weight, gs.Constant):
        raise UserError(f"{node.name} must have constant weights to become INT8", "computed ones")
    if node.op == "Gemm" and not node.attrs.get("transB", 0):
        weight, node.attrs["transB"] = gs.Constant(weight.name, np.ascontiguousarray(weight.values.T)), 1
    activation = quantised[id(node.inputs[0])]
    node.inputs = [activation, _quantised_weight(graph, weight, node.name), *node.inputs[2:]]


def _quantise_input(
    graph: gs.Graph, tensor: gs.Tensor, ranges: Mapping[str, Range], quantised: dict[int, gs.Tensor]
) -> None:
    """Put Q/DQ behind `tensor`, note it in `quantised`; if it is padded by reflection, also before the padding.

    Reflection copies values, so at the same scale the second rounding changes nothing; what makes the tensor
    can write INT8, and a residual addition beside the padding can read it.
    """
    if id(tensor) in quantised:
        return
    pad = producer(tensor, "Pad")
    if pad is None or pad.attrs.get("mode") != "reflect":
        quantised[id(tensor)] = _quantise(graph, tensor, _range_of(ranges, tensor))
        return
    inner = pad.inputs[0]
    if id(inner) not in quantised:
        quantised[id(inner)] = _quantise(graph, inner, _range_of(ranges, tensor))
    pad.inputs[0] = quantised[id(inner)]
    scale = quantised[id(inner)].inputs[0].inputs[1]
    quantised[id(tensor)] = _q_dq(graph, tensor, f"{tensor.name}/int8", scale)


def _range_of(ranges: Mapping[str, Range], tensor: gs.Tensor) -> Range:
    if tensor.name not in ranges:
        raise UserError("every quantised tensor must have a calibration range", f"none for {tensor.name}")
    return ranges[tensor.name]


def _quantise_identities(graph: gs.Graph, quantised: Mapping[int, gs.Tensor]) -> None:
    """Let a residual addition read the quantised identity, so that TensorRT can fuse it into the convolution."""
    for node in graph.nodes:
        if node.op == "Add" and in_encoder(node) and any(producer(tensor, "Conv") for tensor in node.inputs):
            node.inputs = [
                tensor if producer(tensor, "Conv") else quantised.get(id(tensor), tensor) for tensor in node.inputs
            ]


def _quantise(graph: gs.Graph, tensor: gs.Tensor, limits: Range) -> gs.Tensor:
    scale = np.float32(max(abs(limits[0]), abs(limits[1]), 1e-8) / INT8_MAX)
    name = f"{tensor.name}/int8"
    return _q_dq(graph, tensor, name, gs.Constant(f"{name}/scale", np.array(scale)))


def _q_dq(graph: gs.Graph, tensor: gs.Tensor, name: str, scale: gs.Constant) -> gs.Tensor:
    zero = gs.Constant(f"{name}/zero", np.zeros((), np.int8))
    narrow, wide = gs.Variable(f"{name}/q", dtype=np.int8), gs.Variable(f"{name}/dq", dtype=np.float32)
    graph.nodes.append(gs.Node("QuantizeLinear", f"{name}/Q", inputs=[tensor, scale, zero], outputs=[narrow]))
    graph.nodes.append(gs.Node("DequantizeLinear", f"{name}/DQ", inputs=[narrow, scale, zero], outputs=[wide]))
    return wide


def _quantised_weight(graph: gs.Graph, weight: gs.Constant, name: str) -> gs.Tensor:
    """Store a weight as INT8 with one scale per output channel (axis 0) and return it dequantised."""
    narrow, scale = quantised_values(weight.values)
    inputs = [
        gs.Constant(f"{name}/weight/int8", narrow),
        gs.Constant(f"{name}/weight/scale", scale),
        gs.Constant(f"{name}/weight/zero", np.zeros(len(scale), np.int8)),
    ]
    wide = gs.Variable(f"{name}/weight/dq", dtype=np.float32)
    graph.nodes.append(
        gs.Node("DequantizeLinear", f"{name}/weight/DQ", attrs={"axis": 0}, inputs=inputs, outputs=[wide])
    )
    return wide


def quantised_values(weight: NDArray[Any]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return a weight's INT8 values and its scales, one for each output channel (axis 0)."""
    values = weight.astype(np.float32)
    scale = np.maximum(np.abs(values).reshape(len(values), -1).max(axis=1), 1e-8) / INT8_MAX
    shaped = scale.reshape(-1, *([1] * (values.ndim - 1)))
    return np.clip(np.rint(values / shaped), -INT8_MAX, INT8_MAX).astype(np.int8), scale.astype(np.float32)
