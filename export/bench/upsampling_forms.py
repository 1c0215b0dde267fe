"""The sum of the taps' upsampled maps in three forms, to be measured against each other."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.passes.maps_as_products import interpolation

Upsampling = Literal["products, one for all rows", "products", "Resize"]
UPSAMPLINGS: tuple[Upsampling, ...] = ("products, one for all rows", "products", "Resize")


def upsampling(form: Upsampling, grids: Sequence[tuple[int, int]], size: tuple[int, int]) -> onnx.ModelProto:
    """Return a graph from `x` (B, Σ h·w), the maps one after another, to K - Σ up(p_k), (B, H, W)."""
    nodes: list[onnx.NodeProto] = []
    constants: list[onnx.TensorProto] = []

    def constant(values: object) -> str:
        constants.append(numpy_helper.from_array(np.asarray(values), f"c{len(constants)}"))
        return str(constants[-1].name)

    def op(kind: str, *inputs: str, **attrs: Any) -> str:
        nodes.append(helper.make_node(kind, list(inputs), [f"t{len(nodes)}"], **attrs))
        return str(nodes[-1].output[0])

    areas = [height * width for height, width in grids]
    ends = np.cumsum([0, *areas])
    rows, maps = [], []
    for grid, first, end in zip(grids, ends, ends[1:], strict=False):
        part = op("Slice", "x", constant(np.array([first])), constant(np.array([end])), constant(np.array([1])))
        row, column = (interpolation(o, i).astype(np.float32) for o, i in zip(size, grid, strict=True))
        if form == "Resize":
            image = op("Reshape", part, constant(np.array([-1, 1, *grid])))
            scales = constant(np.array([1, 1, *(o / i for o, i in zip(size, grid, strict=True))], np.float32))
            image = op("Resize", image, "", scales, mode="linear", coordinate_transformation_mode="align_corners")
            maps.append(op("Reshape", image, constant(np.array([-1, *size]))))
            continue
        widened = op("MatMul", op("Reshape", part, constant(np.array([-1, *grid]))), constant(column.T.copy()))
        maps.append(widened if form != "products" else op("MatMul", constant(row), widened))
        rows.append(row)
    if form == "products, one for all rows":
        maps = [op("MatMul", constant(np.concatenate(rows, axis=1)), op("Concat", *maps, axis=1))]
    total = op("Sum", *maps) if len(maps) > 1 else maps[0]
    result = op("Sub", constant(np.float32(len(grids))), total)
    tensor, kind = helper.make_tensor_value_info, TensorProto.FLOAT
    inputs, outputs = [tensor("x", kind, ["B", int(ends[-1])])], [tensor(result, kind, ["B", *size])]
    made = helper.make_graph(nodes, "upsampling", inputs, outputs, constants)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
