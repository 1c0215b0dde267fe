"""Large products, to learn with how many operations a machine can do: one for a CPU, a chain of them for a GPU."""

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from export.passes.opset17 import IR_VERSION, OPSET
from runtime.engines.sidecar import INPUT_NAME

CPU_SIDE = 1024  # 2 GFLOP whose three matrices (12 MB) fit into a large cache
CHANNELS = 2048
SIDE = 128  # positions of each product on a GPU: 128 x 128
PRODUCTS = 8  # enough that what comes before and after them takes little of the time
CLASSES = 8  # that the last product comes down to, so that little is left to reduce
INT8_STEP = 4 / 127  # activations have a standard deviation of 1


def matrix_product(precision: str) -> onnx.ModelProto:
    """Return `x` float32 (CPU_SIDE, CPU_SIDE) times a constant; operands of `precision`, "fp32" or "int8"."""
    graph, sides = _Graph(precision), [CPU_SIDE, CPU_SIDE]
    graph.product("MatMul", "x", CPU_SIDE, CPU_SIDE, output="y")
    ends = (helper.make_tensor_value_info(name, TensorProto.FLOAT, sides) for name in ("x", "y"))
    return graph.model(*ends)


def product_flops(channels: int = CHANNELS, side: int = SIDE) -> int:
    """Return the operations of `product_of_frames`, a multiply-add as two."""
    return 2 * side * side * channels * (3 + PRODUCTS * channels + CLASSES)


def product_of_frames(precision: str, channels: int = CHANNELS, side: int = SIDE) -> onnx.ModelProto:
    """Return frames uint8 [1, side, side, 3] to a score [1] by `PRODUCTS` 1 x 1 convolutions of `channels` to as many.

    Their operands are of `precision`, "fp32", "fp16" or "int8", the sums in between of FP32 or, with "fp16", FP16.
    """
    graph = _Graph(precision)
    x = graph.op("Transpose", graph.op("Cast", INPUT_NAME, to=TensorProto.FLOAT), perm=[0, 3, 1, 2])
    x = graph.op("Mul", x, graph.constant(np.float32(1 / 128)))
    if precision == "fp16":
        x = graph.op("Cast", x, to=TensorProto.FLOAT16)
    x = graph.product("Conv", x, channels, 3, plain=True)
    for outputs in (*[channels] * PRODUCTS, CLASSES):
        x = graph.product("Conv", x, outputs, channels)
    if precision == "fp16":
        x = graph.op("Cast", x, to=TensorProto.FLOAT)
    graph.op("ReduceMax", x, axes=[1, 2, 3], keepdims=0, output="score")
    return graph.model(
        helper.make_tensor_value_info(INPUT_NAME, TensorProto.UINT8, [1, side, side, 3]),
        helper.make_tensor_value_info("score", TensorProto.FLOAT, [1]),
    )


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

    def op(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        name = f"{kind.lower()}{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(inputs), [output or name], name=name, **attributes))
        return output or name

    def product(self, kind: str, x: str, outputs: int, inputs: int, *, plain: bool = False, output: str = "") -> str:
        """Add `x` times weights that keep its standard deviation; INT8, where that is the precision, if not `plain`."""
        shape = (outputs, inputs, 1, 1) if kind == "Conv" else (inputs, outputs)
        weight = (self._rng.standard_normal(shape) / np.sqrt(inputs)).astype(np.float32)
        if self._precision != "int8" or plain:
            typed = weight.astype(np.float16) if self._precision == "fp16" else weight
            return self.op(kind, x, self.constant(typed), output=output)
        step = np.float32(np.abs(weight).max() / 127)
        narrow = self.constant(np.rint(weight / step).astype(np.int8))
        scale, zero = self.constant(np.float32(INT8_STEP)), self.constant(np.int8(0))
        x = self.op("DequantizeLinear", self.op("QuantizeLinear", x, scale, zero), scale, zero)
        return self.op(kind, x, self.op("DequantizeLinear", narrow, self.constant(step), zero), output=output)

    def model(self, taken: onnx.ValueInfoProto, given: onnx.ValueInfoProto) -> onnx.ModelProto:
        graph = helper.make_graph(self._nodes, "products", [taken], [given], self._constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        return onnx.shape_inference.infer_shapes(model, strict_mode=True)
