"""What precision a network really has: set from the ONNX where the library must be told, counted and asserted always.

The ONNX carries the types (FP16 tensors between casts, INT8 as pairs of Quantize/DequantizeLinear).
A library that ignores them would build a plan that is whole, slow and silent about it.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any, Literal

import onnx

from export.passes.resize_frames import PREFIX
from runtime.common.errors import UserError

Precision = Literal["fp32", "fp16", "int8"]

RESIZE_PREFIX = PREFIX  # of the names of the layers in front of the model
WEIGHTED = ("CONVOLUTION", "MATRIX_MULTIPLY", "FULLY_CONNECTED")  # 8.6 may parse a Gemm as the last
QUANTIZERS = ("QUANTIZE", "DEQUANTIZE")
SCORE = "score/"  # how the names of its layers begin: they are FP32 in every precision, products and all
WANTED_TYPE = {"fp32": "float", "fp16": "half", "int8": "int8"}


def layers_of(network: Any) -> Iterator[Any]:
    """Yield the layers of a parsed network in order."""
    return (network.get_layer(index) for index in range(network.num_layers))


def onnx_tensor_types(model: onnx.ModelProto) -> dict[str, str]:
    """Return the element type ("float", "float16", "int8", ...) of every tensor of `model` by its name.

    A node's name stands for its first output as well, since one node may become several layers.
    """
    graph = onnx.shape_inference.infer_shapes(model).graph
    numbers = {info.name: info.type.tensor_type.elem_type for info in (*graph.input, *graph.output, *graph.value_info)}
    numbers |= {initializer.name: initializer.data_type for initializer in graph.initializer}
    types = {name: onnx.TensorProto.DataType.Name(number).lower() for name, number in numbers.items()}
    for node in graph.node:
        if node.name and node.output[0] in types:
            types.setdefault(node.name, types[node.output[0]])
    return types


def constrain_layers(network: Any, module: Any, types: dict[str, str]) -> None:
    """Give every floating-point layer of a network without strong typing the precision that the ONNX has there.

    A layer that the ONNX has no tensor for is held to FP32. Layers between Quantize and Dequantize
    stay free: a floating-point precision there would forbid the INT8 kernels.
    """
    floating = (module.DataType.FLOAT, module.DataType.HALF)
    producers = producers_of(network)
    for layer in layers_of(network):
        output = layer.get_output(0)
        quantised = layer.type.name in QUANTIZERS or _reads_dequantised(layer, producers)
        if output.dtype not in floating or layer.type.name == "CONSTANT" or quantised:
            continue
        kind = types.get(output.name, types.get(layer.name, "float"))
        layer.precision = module.DataType.HALF if kind == "float16" else module.DataType.FLOAT
        layer.set_output_type(0, layer.precision)


def count_weighted_layers(network: Any, strongly_typed: bool) -> dict[str, int]:
    """Count convolutions and matrix products by the type that they compute in: {"convolution half": 20, ...}.

    "int8" are those whose inputs both come from a Dequantize. The Quantize layers are counted too, and apart from
    the model those of the resize in front of it, which is FP32 in an engine of any precision.
    """
    counts: Counter[str] = Counter()
    producers = producers_of(network)
    for layer in layers_of(network):
        kind = layer.type.name
        if kind in WEIGHTED and not layer.name.startswith(SCORE):
            what = "resize" if layer.name.startswith(RESIZE_PREFIX) else kind.lower()
            counts[f"{what} {compute_type(layer, producers, strongly_typed)}"] += 1
        elif kind in QUANTIZERS:
            counts[kind.lower()] += 1
    return dict(counts)


def check_precision(counts: dict[str, int], precision: Precision, origin: str) -> None:
    """Assert that a network of these counts is of `precision`.

    FP32 and FP16: every weighted layer. INT8: most of them, since the first and last layers may be
    left out. Raises `UserError` with the counts.
    """
    weighted = {name: n for name, n in counts.items() if name.split()[0].upper() in WEIGHTED}
    total = sum(weighted.values())
    matching = sum(n for name, n in weighted.items() if name.endswith(f" {WANTED_TYPE[precision]}"))
    good = 2 * matching > total if precision == "int8" else matching == total
    if not good or (total == 0 and precision != "fp32"):
        share = "most" if precision == "int8" else "all"
        raise UserError(
            f"{origin} must hold {precision} ({share} weighted layers in {WANTED_TYPE[precision]})",
            ", ".join(f"{n} {name}" for name, n in sorted(weighted.items())) or "no weighted layer",
            f"build from an ONNX that carries {precision}",
        )


def producers_of(network: Any) -> dict[str, Any]:
    """Return {tensor name: the layer that makes it} of a parsed network."""
    return {layer.get_output(index).name: layer for layer in layers_of(network) for index in range(layer.num_outputs)}


def _is_dequantised(tensor: Any, producers: dict[str, Any]) -> bool:
    layer = producers.get(tensor.name)
    while layer is not None and layer.type.name == "SHUFFLE":  # a transpose or reshape in between changes no value
        layer = producers.get(layer.get_input(0).name)
    return layer is not None and layer.type.name == "DEQUANTIZE"


def _inputs(layer: Any) -> list[Any]:
    tensors = (layer.get_input(index) for index in range(layer.num_inputs))
    return [tensor for tensor in tensors if tensor is not None]


def _reads_dequantised(layer: Any, producers: dict[str, Any]) -> bool:
    return any(_is_dequantised(tensor, producers) for tensor in _inputs(layer))


def compute_type(layer: Any, producers: dict[str, Any], strongly_typed: bool) -> str:
    """Return "int8", "half", "float", ...: what a weighted layer computes in."""
    operands = _inputs(layer)[:2]  # the input and, where it is no constant of the layer, the weight
    if len(operands) == 2 and all(_is_dequantised(tensor, producers) for tensor in operands):
        return "int8"
    dtype = operands[0].dtype if strongly_typed or not layer.precision_is_set else layer.precision
    return str(dtype.name).lower()
