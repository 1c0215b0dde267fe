"""Large products in the form of an engine's input, to learn with TensorRT how many operations a GPU can do."""

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from export.passes.opset17 import IR_VERSION, OPSET
from runtime.engines.sidecar import INPUT_NAME

CHANNELS = 2048
SIDE = 128  # positions of each product: 128 x 128
PRODUCTS = 8  # enough that what comes before and after them takes little of the time
CLASSES = 8  # that the last product comes down to, so that little is left to reduce
INT8_STEP = 4 / 127  # activations have a standard deviation of 1


def product_flops(channels: int = CHANNELS, side: int = SIDE) -> int:
    """Return the operations of `product_of_frames`, a multiply-add as two."""
    return 2 * side * side * channels * (3 + PRODUCTS * channels + CLASSES)


def product_of_frames(precision: str, channels: int = CHANNELS, side: int = SIDE) -> onnx.ModelProto:
    """Return frames uint8 [1, side, side, 3] to a score [1] by `PRODUCTS` 1 x 1 convolutions of `channels` to as many.

    Their operands are of `precision`, "fp32", "fp16" or "int8", the sums in between of FP32 or, with "fp16", FP16.
    """
    graph = _Graph(precision)
    x = graph.op("Cast", INPUT_NAME, to=TensorProto.FLOAT)
    x = graph.op("Transpose", x, perm=[0, 3, 1, 2])
    x = graph.op("Mul", x, graph.constant(np.float32(1 / 128)))
    if precision == "fp16":
        x = graph.op("Cast", x, to=TensorProto.FLOAT16)
    x = graph.plain_product(x, 3, channels)
    for outputs in (*[channels] * PRODUCTS, CLASSES):
        x = graph.product(x, channels, outputs)
    if precision == "fp16":
        x = graph.op("Cast", x, to=TensorProto.FLOAT)
    graph.op("ReduceMax", x, axes=[1, 2, 3], keepdims=0, output="score")
    return graph.model(side)


class _Graph:
    """Nodes and constants as they are added; weights are seeded, no two the same."""

    def __init__(self, precision: str) -> None:
        self._precision = precision
        self._rng = np.random.default_rng(0)
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def constant(self, values: NDArray[np.generic] | np.generic) -> str:
        name = f"constant{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def weight(self, outputs: int, inputs: int) -> NDArray[np.float32]:
        """Draw a kernel that keeps the standard deviation of what it is given."""
        values: NDArray[np.float64] = self._rng.standard_normal((outputs, inputs, 1, 1)) / np.sqrt(inputs)
        narrow: NDArray[np.float32] = values.astype(np.float32)
        return narrow

    def op(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        name = f"{kind.lower()}{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(inputs), [output or name], name=name, **attributes))
        return output or name

    def plain_product(self, x: str, inputs: int, outputs: int) -> str:
        weight = self.weight(outputs, inputs)
        typed = weight.astype(np.float16) if self._precision == "fp16" else weight
        return self.op("Conv", x, self.constant(typed), kernel_shape=[1, 1])

    def product(self, x: str, inputs: int, outputs: int) -> str:
        if self._precision != "int8":
            return self.plain_product(x, inputs, outputs)
        weight = self.weight(outputs, inputs)
        steps = np.abs(weight).max(axis=(1, 2, 3)) / 127
        narrow = np.rint(weight / steps[:, None, None, None]).astype(np.int8)
        scale, zero = self.constant(np.float32(INT8_STEP)), self.constant(np.int8(0))
        x = self.op("DequantizeLinear", self.op("QuantizeLinear", x, scale, zero), scale, zero)
        zeros = self.constant(np.zeros(outputs, np.int8))
        wide = self.op("DequantizeLinear", self.constant(narrow), self.constant(steps), zeros, axis=0)
        return self.op("Conv", x, wide, kernel_shape=[1, 1])

    def model(self, side: int) -> onnx.ModelProto:
        graph = helper.make_graph(
            self._nodes,
            "products",
            [helper.make_tensor_value_info(INPUT_NAME, TensorProto.UINT8, [1, side, side, 3])],
            [helper.make_tensor_value_info("score", TensorProto.FLOAT, [1])],
            self._constants,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        return onnx.shape_inference.infer_shapes(model, strict_mode=True)
