"""`cable.onnx` to `cable.fp16.onnx` or `cable.int8.onnx`: the graph itself carries the types.

TensorRT from 10 on reads precision from the graph and nothing else, so this is where it is decided:

- FP16: the encoder as a whole, and in the decoders the matrix products and the subnets' hidden layers.
  The coupling state, tanh, exp, log-determinants, norms and the map stay FP32. Before a value is rounded
  to FP16 it is limited so far that no product can overflow (see `export.fp16_limits`).
- INT8: symmetric Q/DQ in front of convolutions and the subnets' products, weights per output channel,
  biases FP32. The permutations are left alone unless asked for: they carry the state itself, and a range
  seen on good images would clip away exactly what a defect does.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from export.calibration import METHODS, Range, collect_ranges
from export.calibration_data import DEFAULT_FOLDER, CalibrationData, read_calibration_data
from export.fp16_limits import GemmLimits, gemm_limits
from export.onnx_files import get_info, load_model, save_model, set_info
from export.passes.graph import gemm_weight, producer
from runtime.errors import UserError, run_command
from runtime.metadata import sidecar_path

WEIGHTED = ("Conv", "Gemm")
INT8_MAX = 127  # symmetric: -128 is not used


def to_fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the fused FP32 `model` with FP16 convolutions and matrix products."""
    graph = gs.import_onnx(model)
    encoder = [node for node in graph.nodes if _in_encoder(node)]
    _convert_encoder(graph, encoder)
    for node in [node for node in graph.nodes if node.op == "Gemm"]:
        limits = gemm_limits(node)
        if limits is None:
            raise UserError(f"{node.name} must be a plain product with constant weights to become FP16", node.op)
        _convert_gemm(graph, node, limits)
    return _finish(model, graph, "fp16")


def _in_encoder(node: gs.Node) -> bool:
    return bool(node.name.startswith("encoder/"))


def _half(tensor: gs.Tensor) -> gs.Tensor:
    """Return a floating constant rounded to FP16; anything else as it is."""
    if isinstance(tensor, gs.Constant) and tensor.values.dtype == np.float32:
        return gs.Constant(f"{tensor.name}/fp16", tensor.values.astype(np.float16))
    return tensor


def _cast(graph: gs.Graph, tensor: gs.Tensor, to: type[np.generic], name: str) -> gs.Tensor:
    output = gs.Variable(f"{name}/out", dtype=to)
    code = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(to))
    graph.nodes.append(gs.Node("Cast", name, attrs={"to": code}, inputs=[tensor], outputs=[output]))
    return output


def _convert_encoder(graph: gs.Graph, encoder: Sequence[gs.Node]) -> None:
    """Make every node of the encoder FP16, with one Cast on the way in and one at each tap."""
    made = {id(output) for node in encoder for output in node.outputs}
    entries: dict[int, gs.Tensor] = {}
    for node in encoder:
        inputs = []
        for tensor in node.inputs:
            if isinstance(tensor, gs.Constant) or id(tensor) in made or tensor.dtype != np.float32:
                inputs.append(_half(tensor))
                continue
            if id(tensor) not in entries:
                entries[id(tensor)] = _cast(graph, tensor, np.float16, f"encoder/input{len(entries)}/fp16")
            inputs.append(entries[id(tensor)])
        node.inputs = inputs
    for node in encoder:
        for output in node.outputs:
            output.dtype = np.float16
            readers = [reader for reader in output.outputs if not _in_encoder(reader)]
            if readers:
                wide = _cast(graph, output, np.float32, f"{node.name}/fp32")
                for reader in readers:
                    reader.inputs = [wide if tensor is output else tensor for tensor in reader.inputs]


def _convert_gemm(graph: gs.Graph, gemm: gs.Node, limits: GemmLimits) -> None:
    """Make one product FP16, and for a subnet's first layer everything up to its rectifier."""
    name = gemm.name
    source = gemm.inputs[0]
    hidden = producer(source, "Clip")
    if hidden is not None and source.dtype == np.float16:  # the rectifier of a subnet, made FP16 before
        hidden.inputs[2].values = np.float16(limits.input_limit)
    else:
        source = _clip(graph, source, -limits.input_limit, limits.input_limit, np.float32, f"{name}/limit")
        source = _cast(graph, source, np.float16, f"{name}/fp16")
    gemm.inputs = [source, *(_half(tensor) for tensor in gemm.inputs[1:])]
    gemm.outputs[0].dtype = np.float16
    for node in limits.followers:
        node.inputs = [_half(tensor) for tensor in node.inputs]
        node.outputs[0].dtype = np.float16
    last = limits.followers[-1] if limits.followers else gemm
    if last.op == "Relu":  # one operation that rectifies and limits; the next product sets the limit
        zero, top = np.float16(0), np.float16(np.finfo(np.float16).max)
        last.op = "Clip"
        last.inputs = [
            last.inputs[0],
            gs.Constant(f"{name}/zero", np.array(zero)),
            gs.Constant(f"{name}/top", np.array(top)),
        ]
        return
    narrow = last.outputs[0]
    readers = list(narrow.outputs)
    wide = _cast(graph, narrow, np.float32, f"{name}/fp32")
    for reader in readers:
        reader.inputs = [wide if tensor is narrow else tensor for tensor in reader.inputs]


def _clip(graph: gs.Graph, x: gs.Tensor, low: float, high: float, kind: type[np.generic], name: str) -> gs.Tensor:
    output = gs.Variable(f"{name}/out", dtype=kind)
    bounds = [gs.Constant(f"{name}/{side}", np.array(value, kind)) for side, value in (("low", low), ("high", high))]
    graph.nodes.append(gs.Node("Clip", name, inputs=[x, *bounds], outputs=[output]))
    return output


def to_int8(
    model: onnx.ModelProto, ranges: Mapping[str, Range], *, quantise_permutations: bool = False
) -> onnx.ModelProto:
    """Return the fused FP32 `model` with symmetric Q/DQ; `ranges` maps tensor names to (lowest, highest)."""
    graph = gs.import_onnx(model)
    weighted = [node for node in graph.nodes if node.op in WEIGHTED]
    if not quantise_permutations:
        weighted = [node for node in weighted if not _is_permutation(node)]
    quantised: dict[int, gs.Tensor] = {}
    for node in weighted:
        _quantise_input(graph, node.inputs[0], ranges, quantised)
        weight = node.inputs[1]
        if not isinstance(weight, gs.Constant):
            raise UserError(f"{node.name} must have constant weights to become INT8", "computed ones")
        if node.op == "Gemm" and not node.attrs.get("transB", 0):
            weight, node.attrs["transB"] = gs.Constant(weight.name, np.ascontiguousarray(weight.values.T)), 1
        activation = quantised[id(node.inputs[0])]
        node.inputs = [activation, _quantised_weight(graph, weight, node.name), *node.inputs[2:]]
    _quantise_identities(graph, quantised)
    return _finish(model, graph, "int8")


def _is_permutation(node: gs.Node) -> bool:
    weight = gemm_weight(node)
    return weight is not None and weight.shape[0] == weight.shape[1] and "/subnet" not in node.name


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
        if node.op == "Add" and _in_encoder(node) and any(producer(tensor, "Conv") for tensor in node.inputs):
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
    values: NDArray[Any] = weight.values.astype(np.float32)
    scale = np.maximum(np.abs(values).reshape(len(values), -1).max(axis=1), 1e-8) / INT8_MAX
    shaped = scale.reshape(-1, *([1] * (values.ndim - 1)))
    narrow = np.clip(np.rint(values / shaped), -INT8_MAX, INT8_MAX).astype(np.int8)
    inputs = [
        gs.Constant(f"{name}/weight/int8", narrow),
        gs.Constant(f"{name}/weight/scale", scale.astype(np.float32)),
        gs.Constant(f"{name}/weight/zero", np.zeros(len(values), np.int8)),
    ]
    wide = gs.Variable(f"{name}/weight/dq", dtype=np.float32)
    graph.nodes.append(
        gs.Node("DequantizeLinear", f"{name}/weight/DQ", attrs={"axis": 0}, inputs=inputs, outputs=[wide])
    )
    return wide


def _finish(model: onnx.ModelProto, graph: gs.Graph, precision: str) -> onnx.ModelProto:
    graph.cleanup(remove_unused_graph_inputs=False).toposort()
    typed = gs.export_onnx(graph)
    typed.ir_version = model.ir_version
    del typed.graph.value_info[:]
    typed = onnx.shape_inference.infer_shapes(typed, strict_mode=True, data_prop=True)
    set_info(typed, replace(get_info(model, "the fused model"), precision=precision))
    return typed


def calibrated_int8(
    model: onnx.ModelProto, data: CalibrationData, *, method: str = "minmax", quantise_permutations: bool = False
) -> onnx.ModelProto:
    """Measure ranges on the calibration images and return the INT8 model."""
    size = get_info(model, "the fused model").metadata.input_size
    ranges = collect_ranges(model, data, size, WEIGHTED, method)
    return to_int8(model, ranges, quantise_permutations=quantise_permutations)


def main(argv: Sequence[str] | None = None) -> None:
    """Type a fused ONNX from the command line."""
    parser = argparse.ArgumentParser(prog="python -m export.precision", description=__doc__.split("\n")[0])
    parser.add_argument("onnx", type=Path, help="a fused ONNX written by export.fuse")
    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument("--fp16", action="store_true")
    kind.add_argument("--int8", action="store_true")
    parser.add_argument("--calibration-data", type=Path, default=DEFAULT_FOLDER, help="good images (with --int8)")
    parser.add_argument("--calibrator", choices=METHODS, default="minmax", help="how ranges are chosen (with --int8)")
    parser.add_argument("--quantise-permutations", action="store_true", help="INT8 for the permutations too")
    options = parser.parse_args(argv)
    model = load_model(options.onnx)
    if not get_info(model, options.onnx.name).fused:
        raise UserError(f"{options.onnx} must be fused", "an unfused export", "run export.fuse on it first")
    if options.fp16:
        typed, name = to_fp16(model), "fp16"
    else:
        data = read_calibration_data(options.calibration_data)
        permutations = options.quantise_permutations
        typed = calibrated_int8(model, data, method=options.calibrator, quantise_permutations=permutations)
        name = "int8"
    out = sidecar_path(options.onnx).with_suffix(f".{name}.onnx")
    save_model(typed, out)
    print(f"wrote {out}")


def command() -> int:
    """Run as a console script."""
    return run_command(main)


if __name__ == "__main__":
    sys.exit(command())
