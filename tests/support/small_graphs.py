"""A small graph of the engine contract with one Conv and one Gemm, in each precision that an ONNX can carry."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.support.tiny_engine import tiny_sidecar

CHANNELS = 16
SIZE = (16, 24)
MAX_BATCH = 3  # of its plans
HALF_STEPS = 127  # symmetric INT8: -127..127


def sidecar_for(path):
    """Return the sidecar's content for an ONNX of a small graph."""
    return tiny_sidecar(path, SIZE, ("layer2",))


def frames_of(batch, seed=3):
    """Return random frames for it."""
    return np.random.default_rng(seed).integers(0, 256, (batch, *SIZE, 3), np.uint8)


class GraphBuilder:
    """Collects nodes and initialisers; every method returns the name of the tensor that it made."""

    def __init__(self, precision):
        self.precision = precision
        self.nodes, self.initializers = [], []

    def constant(self, name, value):
        self.initializers.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def node(self, kind, inputs, output, **attributes):
        self.nodes.append(helper.make_node(kind, inputs, [output], name=f"{output}_node", **attributes))
        return output

    def weighted(self, kind, source, output, weight, bias, activation_scale, **attributes):
        """A Conv or Gemm (weights with the output channel first): plain, between casts, or behind Q/DQ."""
        if self.precision == "fp16":
            inputs = [
                self.node("Cast", [source], f"{output}_in", to=TensorProto.FLOAT16),
                self.constant(f"{output}_w", weight.astype(np.float16)),
                self.constant(f"{output}_b", bias.astype(np.float16)),
            ]
            half = self.node(kind, inputs, f"{output}_half", **attributes)
            return self.node("Cast", [half], output, to=TensorProto.FLOAT)
        if self.precision == "int8":
            source = self.quantised_activation(source, output, activation_scale)
            weight_name = self.quantised_weight(output, weight)
        else:
            weight_name = self.constant(f"{output}_w", weight)
        return self.node(kind, [source, weight_name, self.constant(f"{output}_b", bias)], output, **attributes)

    def quantised_activation(self, source, output, scale):
        scale_and_zero = [
            self.constant(f"{output}_in_scale", np.float32(scale)),
            self.constant(f"{output}_in_zero", np.int8(0)),
        ]
        quantised = self.node("QuantizeLinear", [source, *scale_and_zero], f"{output}_q")
        return self.node("DequantizeLinear", [quantised, *scale_and_zero], f"{output}_dq")

    def quantised_weight(self, output, weight):
        rows = weight.reshape(len(weight), -1)
        scale = (np.abs(rows).max(axis=1) / HALF_STEPS).astype(np.float32)
        quantised = np.rint(rows / scale[:, None]).astype(np.int8).reshape(weight.shape)
        inputs = [
            self.constant(f"{output}_w", quantised),
            self.constant(f"{output}_w_scale", scale),
            self.constant(f"{output}_w_zero", np.zeros(len(weight), np.int8)),
        ]
        return self.node("DequantizeLinear", inputs, f"{output}_w_dq", axis=0)


def _parameters():
    """Kernel and bias of the convolution, matrix and bias of the product."""
    random = np.random.default_rng(7)
    kernel, bias = random.normal(size=(CHANNELS, 3, 3, 3)).astype(np.float32) / 3, random.normal(size=CHANNELS)
    matrix, last_bias = random.normal(size=(CHANNELS, CHANNELS)).astype(np.float32) / 4, random.normal(size=CHANNELS)
    return kernel, bias.astype(np.float32), matrix, last_bias.astype(np.float32)


def small_maps(frames):
    """What `small_model` computes of frames (B, H, W, 3), in float64 with its FP32 weights."""
    kernel, bias, matrix, last_bias = (values.astype(np.float64) for values in _parameters())
    padded = np.pad(frames / 255, ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))  # (B, H, W, 3, rows, columns)
    features = np.einsum("bhwcij,ocij->bhwo", windows, kernel) + bias
    return (np.tanh(features @ matrix.T + last_bias) ** 2).sum(axis=3)


def small_model(precision="fp32", batch="batch", size=SIZE):
    """frames -> Conv 3x3 -> Gemm -> tanh -> anomaly_map = sum of squares over channels, image_score = its maximum."""
    kernel, bias, matrix, last_bias = _parameters()
    graph = GraphBuilder(precision)
    height, width = size
    pixels = graph.node("Cast", ["frames"], "pixels", to=TensorProto.FLOAT)
    scaled = graph.node("Mul", [pixels, graph.constant("scale", np.float32(1 / 255))], "scaled")
    image = graph.node("Transpose", [scaled], "image", perm=[0, 3, 1, 2])
    features = graph.weighted("Conv", image, "features", kernel, bias, 1 / HALF_STEPS, pads=[1] * 4)
    last = graph.node("Transpose", [features], "channels_last", perm=[0, 2, 3, 1])
    fibers = graph.node("Reshape", [last, graph.constant("fibers_shape", np.array([-1, CHANNELS]))], "fibers")
    mixed = graph.weighted("Gemm", fibers, "mixed", matrix, last_bias, 8 / HALF_STEPS, transB=1)
    clamped = graph.node("Tanh", [mixed], "clamped")
    norm = graph.node("ReduceSumSquare", [clamped], "norm", axes=[1], keepdims=0)
    graph.node("Reshape", [norm, graph.constant("map_shape", np.array([-1, height, width]))], "anomaly_map")
    graph.node("ReduceMax", ["anomaly_map"], "image_score", axes=[1, 2], keepdims=0)
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            f"small_{precision}",
            [helper.make_tensor_value_info("frames", TensorProto.UINT8, [batch, height, width, 3])],
            [
                helper.make_tensor_value_info("anomaly_map", TensorProto.FLOAT, [batch, height, width]),
                helper.make_tensor_value_info("image_score", TensorProto.FLOAT, [batch]),
            ],
            graph.initializers,
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    onnx.checker.check_model(model, full_check=True)
    return model
