"""Rewrite 1: the condition vector becomes a bias.

    W1 [x1; c] + b1  =  W1x x1 + B(h, w),      W1 = [W1x, W1c]
    B(h, w)  =  W1c c(h, w) + b1  =  row(h) + col(w),   since c(h, w) = c(h, 0) + c(0, w) - c(0, 0)

The position code's first half depends on the column alone and its second half on the row alone, so B is
a sum of two small tables. One H x W table would cost more memory traffic than the product it saves.

A tile's code begins at its place in the frame: the first half is one entry of a table by columns of tiles, the second
one of a table by rows of tiles, and so are then col(w) and row(h). These are summed by themselves: an addition of two
images is what OpenVINO joins to a product inside a loop, and of three it makes passes over memory.
"""

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from export.passes.rewrite import (
    Array,
    Match,
    ModelFacts,
    Rewrite,
    constant,
    gemm_bias,
    gemm_weight,
    insert,
    producer,
    set_gemm,
    table_behind,
)


@dataclass(frozen=True)
class _TileCode:
    """The code of tiles: of their columns (columns of tiles, w, C1), and of their rows (rows of tiles, h, C2).

    `column` and `row` say which entry each tile of the batch has.
    """

    columns: Array
    rows: Array
    column: gs.Tensor
    row: gs.Tensor


def _code_of(condition: gs.Tensor) -> Array | _TileCode | None:
    """Return the code that a condition is made of: (h, w, C), the same for every frame of a batch, or that of tiles."""
    reshape = producer(condition, "Reshape")
    made = reshape and producer(reshape.inputs[0], "Expand", "Concat")
    if made is None:
        return None
    if made.op == "Concat":
        return _tile_code(made)
    if not isinstance(made.inputs[0], gs.Constant):
        return None
    values: Array = made.inputs[0].values
    return values[0] if values.ndim == 4 and values.shape[0] == 1 else values


def _tile_code(concat: gs.Node) -> _TileCode | None:
    """Return the code behind Concat(columns of (B, 1, w, C1), rows of (B, h, 1, C2)), both expanded to (B, h, w, C)."""
    parts = [_gathered(tensor) for tensor in concat.inputs]
    if len(parts) != 2 or concat.attrs.get("axis") not in (3, -1):
        return None
    (first, second) = parts
    if first is None or second is None or (first[1], second[1]) != (1, 2):
        return None
    return _TileCode(first[0].inputs[0].values, second[0].inputs[0].values, first[0].inputs[1], second[0].inputs[1])


def _gathered(tensor: gs.Tensor) -> tuple[gs.Node, int] | None:
    """Return the Gather of a table (tiles, positions, C), and the axis that was then put in and expanded."""
    expand = producer(tensor, "Expand")
    unsqueeze = expand and producer(expand.inputs[0], "Unsqueeze")
    axes = unsqueeze.inputs[1] if unsqueeze is not None else None
    if unsqueeze is None or not isinstance(axes, gs.Constant) or axes.values.size != 1:
        return None
    table = table_behind(unsqueeze.inputs[0])
    if table is None or table.values.ndim != 3:
        return None
    return producer(unsqueeze.inputs[0], "Gather"), int(axes.values.reshape(()))


def _find(node: gs.Node) -> Match | None:
    concat = producer(node.inputs[0], "Concat") if node.op == "Gemm" else None
    if concat is None or len(concat.inputs) != 2 or concat.attrs.get("axis") not in (1, -1):
        return None
    code = _code_of(concat.inputs[1])
    return None if code is None else {"gemm": node, "concat": concat, "code": code}


def _check(graph: gs.Graph, match: Match) -> str | None:
    code, weight = match["code"], gemm_weight(match["gemm"])
    if weight is None or gemm_bias(match["gemm"]) is None:
        return "its weight and bias must be plain constants"
    if isinstance(code, _TileCode):
        width = code.columns.shape[2] + code.rows.shape[2]
        return None if width < weight.shape[1] else f"a code of {width} for a product of {weight.shape[1]} inputs"
    code = code.astype(np.float64)
    if code.ndim != 3 or weight.shape[1] <= code.shape[2]:
        return f"a code (h, w, C) narrower than the product's {weight.shape[1]} inputs was expected, found {code.shape}"
    if not np.allclose(code[:, :1] + code[:1] - code[:1, :1], code, rtol=0, atol=1e-12):  # float64 of float32 values
        return "the position code is not a function of the row plus a function of the column"
    return None


def _apply(graph: gs.Graph, match: Match) -> None:
    gemm, code = match["gemm"], match["code"]
    weight, bias = gemm_weight(gemm), gemm_bias(gemm)
    assert weight is not None and bias is not None
    out, name, features = gemm.outputs[0], gemm.name, weight.shape[0]
    if isinstance(code, _TileCode):
        (height, row_channels), (width, column_channels) = code.rows.shape[1:], code.columns.shape[1:]
        channels = row_channels + column_channels
        row, col = _tile_tables(code, weight.astype(np.float64), bias)
        entries = [
            insert(graph, "Gather", f"{name}/row_of_tile", [constant(f"{name}/row_bias", row), code.row]),
            insert(graph, "Gather", f"{name}/col_of_tile", [constant(f"{name}/col_bias", col), code.column]),
        ]
        position = [insert(graph, "Add", f"{name}/position_of_tile", entries)]
    else:
        height, width, channels = code.shape
        row, col = _tables(code.astype(np.float64), weight.astype(np.float64), bias)
        position = [constant(f"{name}/row_bias", row), constant(f"{name}/col_bias", col)]
    product = gs.Variable(f"{name}/product", dtype=np.float32)
    gemm.outputs = [product]
    set_gemm(gemm, match["concat"].inputs[0], weight[:, :-channels], None)
    grid_shape = constant(f"{name}/grid_shape", [-1, height, width, features])
    grid = insert(graph, "Reshape", f"{name}/grid", [product, grid_shape])
    grid = insert(graph, "Sum" if len(position) > 1 else "Add", f"{name}/position", [grid, *position])
    shape = constant(f"{name}/fibers_shape", [-1, features])
    graph.nodes.append(gs.Node("Reshape", f"{name}/fibers", inputs=[grid, shape], outputs=[out]))


def _tables(code: Array, weight: Array, bias: Array) -> tuple[Array, Array]:
    """Return row(h) (h, 1, 2i) and col(w) (1, w, 2i) for a code (h, w, C)."""
    w_condition = weight[:, -code.shape[2] :].T
    return code[:, :1] @ w_condition + bias, (code[:1] - code[:1, :1]) @ w_condition


def _tile_tables(code: _TileCode, weight: Array, bias: Array) -> tuple[Array, Array]:
    """Return row(h) (rows of tiles, h, 1, 2i) and col(w) (columns of tiles, 1, w, 2i)."""
    rows, columns = code.rows.astype(np.float64), code.columns.astype(np.float64)
    w_columns, w_rows = np.split(weight[:, -columns.shape[2] - rows.shape[2] :].T, [columns.shape[2]])
    return (rows @ w_rows + bias)[:, :, None], (columns @ w_columns)[:, None]


def _expected(facts: ModelFacts) -> int:
    return facts.blocks if facts.conditional else 0


REWRITE = Rewrite("condition into row and column bias", _find, _check, _apply, _expected)
