"""The fused FP32 graph as a typed one: what becomes FP16 or INT8, and the facts in the file beside it."""

from collections.abc import Collection, Mapping
from dataclasses import replace

import onnx
import onnx_graphsurgeon as gs

from export.calibration_data import CalibrationData
from export.graph.onnx_files import get_info, set_info
from export.graph.weighted_layers import WEIGHTED
from export.precisions.fp16 import decoder_products, type_encoder, type_products
from export.precisions.int8 import permutation_layers, quantise
from export.precisions.ranges import Range, collect_ranges


def to_fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the fused FP32 `model` with FP16 convolutions and matrix products."""
    graph = gs.import_onnx(model)
    type_encoder(graph)
    type_products(graph, decoder_products(graph))
    return _finish(model, _exported(model, graph), "fp16")


def to_int8(
    model: onnx.ModelProto, ranges: Mapping[str, Range], *, left_out: Collection[str] | None = None
) -> onnx.ModelProto:
    """Return the fused FP32 `model` with symmetric Q/DQ; `ranges` maps tensor names to (lowest, highest).

    The layers named in `left_out` (None: the permutations) are FP16 instead.
    """
    return _finish(
        model, int8_graph(model, ranges, permutation_layers(model) if left_out is None else left_out), "int8"
    )


def int8_graph(model: onnx.ModelProto, ranges: Mapping[str, Range], left_out: Collection[str]) -> onnx.ModelProto:
    """Return what `to_int8` does without the shapes of tensors and the facts: it can be run, and is made faster."""
    graph = gs.import_onnx(model)
    quantise(graph, ranges, left_out)
    return _exported(model, graph)


def _exported(model: onnx.ModelProto, graph: gs.Graph) -> onnx.ModelProto:
    graph.cleanup(remove_unused_graph_inputs=False).toposort()
    typed: onnx.ModelProto = gs.export_onnx(graph)
    typed.ir_version = model.ir_version
    del typed.graph.value_info[:]
    return typed


def _finish(model: onnx.ModelProto, typed: onnx.ModelProto, precision: str) -> onnx.ModelProto:
    typed = onnx.shape_inference.infer_shapes(typed, strict_mode=True, data_prop=True)
    set_info(typed, replace(get_info(model, "the fused model"), precision=precision))
    return typed


def calibrated_int8(
    model: onnx.ModelProto, data: CalibrationData, *, method: str = "minmax", quantise_permutations: bool = False
) -> onnx.ModelProto:
    """Measure ranges on the calibration images and return the INT8 model."""
    sidecar = get_info(model, "the fused model").sidecar
    ranges = collect_ranges(model, data, sidecar.input_size, WEIGHTED, method, tiles=sidecar.tiles)
    return to_int8(model, ranges, left_out=() if quantise_permutations else None)
