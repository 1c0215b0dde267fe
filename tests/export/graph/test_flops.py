"""FLOP counts against hand counts of small graphs and of whole encoders."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.graph.flops import count_flops


def _model(nodes, inputs, constants):
    graph = helper.make_graph(
        nodes,
        "counted",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.zeros(shape, np.float32), name) for name, shape in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize(
    ("node", "x", "constants", "expected"),
    [
        # 5x7 with a 3x3 kernel, stride 2, no padding: 2x3 positions of 4 channels, each a sum over 6·3·3
        (helper.make_node("Conv", ["x", "w"], ["y"], strides=[2, 2]), (1, 6, 5, 7), {"w": (4, 6, 3, 3)}, 2 * 24 * 54),
        # two groups: each output channel sees 3 of the 6
        (
            helper.make_node("Conv", ["x", "w"], ["y"], strides=[2, 2], group=2),
            (1, 6, 5, 7),
            {"w": (4, 3, 3, 3)},
            2 * 24 * 27,
        ),
        (helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1), (5, 3), {"w": (4, 3), "b": (4,)}, 2 * 20 * 3),
        (helper.make_node("Gemm", ["x", "w"], ["y"], transA=1), (3, 5), {"w": (3, 4)}, 2 * 20 * 3),
        (helper.make_node("MatMul", ["x", "w"], ["y"]), (2, 7, 5, 3), {"w": (3, 4)}, 2 * 2 * 7 * 20 * 3),
        (helper.make_node("MatMul", ["w", "x"], ["y"]), (2, 3, 4), {"w": (5, 3)}, 2 * 2 * 20 * 3),
        (helper.make_node("Add", ["x", "w"], ["y"]), (5, 3), {"w": (3,)}, 0),
    ],
    ids=["conv", "grouped conv", "gemm", "gemm of a transposed matrix", "batched matmul", "constant first", "addition"],
)
def test_a_single_operation(node, x, constants, expected):
    symbolic = ("batch", *x[1:])
    assert count_flops(_model([node], {"x": symbolic}, constants), {"x": np.zeros(x, np.float32)}) == expected


def test_a_chain_counts_every_operation_once_at_the_batch_that_is_fed():
    nodes = [
        helper.make_node("Gemm", ["x", "w"], ["h"], transB=1),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "v"], ["y"]),
    ]
    model = _model(nodes, {"x": ("batch", 3)}, {"w": (8, 3), "v": (8, 2)})
    for batch in (1, 6):
        feeds = {"x": np.zeros((batch, 3), np.float32)}
        assert count_flops(model, feeds) == batch * (2 * 8 * 3 + 2 * 2 * 8)
    assert [value.name for value in model.graph.output] == ["y"]  # the model given is left as it was
