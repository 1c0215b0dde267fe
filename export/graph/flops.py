"""What an ONNX graph asks of a machine: the operations of its convolutions and matrix products, its weights' bytes."""

import math
from collections.abc import Mapping
from typing import Any

import onnx

from export.graph.onnx_files import cpu_session

COUNTED = ("Conv", "Gemm", "MatMul")


def count_flops(model: onnx.ModelProto, feeds: Mapping[str, Any]) -> int:
    """Return the operations that one run on `feeds` takes, a multiply-add as 2; additions of biases are left out.

    The shapes are those of a run in ONNX Runtime, because a graph of any batch need not state its own.
    A product with n output elements, each a sum over k, takes 2 n k.
    """
    counted = [node for node in model.graph.node if node.op_type in COUNTED]
    shapes = _shapes(model, feeds, {name for node in counted for name in (*node.input[:2], node.output[0])})
    return sum(2 * math.prod(shapes[node.output[0]]) * _summands(node, shapes) for node in counted)


def weight_bytes(model: onnx.ModelProto) -> int:
    """Return the bytes of a graph's constants."""
    return sum(
        math.prod(tensor.dims) * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        for tensor in model.graph.initializer
    )


def _summands(node: onnx.NodeProto, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Return how many products one output element is the sum of."""
    if node.op_type == "Conv":
        return math.prod(shapes[node.input[1]][1:])  # (outputs, inputs / groups, *kernel)
    transposed = node.op_type == "Gemm" and any(a.name == "transA" and a.i for a in node.attribute)
    return shapes[node.input[0]][0 if transposed else -1]


def _shapes(model: onnx.ModelProto, feeds: Mapping[str, Any], names: set[str]) -> dict[str, tuple[int, ...]]:
    """Return the shape of each named tensor in a run on `feeds`."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    shapes |= {name: value.shape for name, value in feeds.items()}
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.output[:]
    wanted = sorted(names - set(shapes))
    for name in wanted:
        copy.graph.output.append(onnx.ValueInfoProto(name=name))
    if wanted:
        values = cpu_session(copy).run(wanted, dict(feeds))
        shapes |= {name: value.shape for name, value in zip(wanted, values, strict=True)}
    return shapes
