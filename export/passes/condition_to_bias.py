"""Rewrite 1: the condition vector becomes a bias.

    W1 [x1; c] + b1  =  W1x x1 + B(h, w),      W1 = [W1x, W1c]
    B(h, w)  =  W1c c(h, w) + b1  =  row(h) + col(w),   since c(h, w) = c(h, 0) + c(0, w) - c(0, 0)

The position code's first half depends on the column alone and its second half on the row alone, so B is
a sum of two small tables. One H x W table would cost more memory traffic than the product it saves.
"""

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
)


def _code_of(condition: gs.Tensor) -> Array | None:
    """Return the (h, w, C) code behind Reshape(Expand(code)), the code of every frame of a batch."""
    reshape = producer(condition, "Reshape")
    expand = reshape and producer(reshape.inputs[0], "Expand")
    if expand is None or not isinstance(expand.inputs[0], gs.Constant):
        return None
    values: Array = expand.inputs[0].values
    return values[0] if values.ndim == 4 and values.shape[0] == 1 else values


def _find(node: gs.Node) -> Match | None:
    concat = producer(node.inputs[0], "Concat") if node.op == "Gemm" else None
    if concat is None or len(concat.inputs) != 2 or concat.attrs.get("axis") not in (1, -1):
        return None
    code = _code_of(concat.inputs[1])
    return None if code is None else {"gemm": node, "concat": concat, "code": code}


def _check(graph: gs.Graph, match: Match) -> str | None:
    code = match["code"].astype(np.float64)
    weight = gemm_weight(match["gemm"])
    if weight is None or gemm_bias(match["gemm"]) is None:
        return "its weight and bias must be plain constants"
    if code.ndim != 3 or weight.shape[1] <= code.shape[2]:
        return f"a code (h, w, C) narrower than the product's {weight.shape[1]} inputs was expected, found {code.shape}"
    if not np.allclose(code[:, :1] + code[:1] - code[:1, :1], code, rtol=0, atol=1e-12):  # float64 of float32 values
        return "the position code is not a function of the row plus a function of the column"
    return None


def _apply(graph: gs.Graph, match: Match) -> None:
    gemm, code = match["gemm"], match["code"].astype(np.float64)
    height, width, channels = code.shape
    weight = gemm_weight(gemm)
    assert weight is not None
    bias = gemm_bias(gemm)
    w_condition = weight[:, -channels:].astype(np.float64).T
    row = code[:, :1] @ w_condition + bias  # (h, 1, 2i)
    col = (code[:1] - code[:1, :1]) @ w_condition  # (1, w, 2i)

    out = gemm.outputs[0]
    name, features = gemm.name, weight.shape[0]
    product = gs.Variable(f"{name}/product", dtype=np.float32)
    gemm.outputs = [product]
    set_gemm(gemm, match["concat"].inputs[0], weight[:, :-channels], None)
    grid = insert(
        graph, "Reshape", f"{name}/grid", [product, constant(f"{name}/grid_shape", [-1, height, width, features])]
    )
    tables = [constant(f"{name}/row_bias", row), constant(f"{name}/col_bias", col)]
    grid = insert(graph, "Sum", f"{name}/position", [grid, *tables])
    shape = constant(f"{name}/fibers_shape", [-1, features])
    graph.nodes.append(gs.Node("Reshape", f"{name}/fibers", inputs=[grid, shape], outputs=[out]))


def _expected(facts: ModelFacts) -> int:
    return facts.blocks if facts.conditional else 0


REWRITE = Rewrite("condition into row and column bias", _find, _check, _apply, _expected)
