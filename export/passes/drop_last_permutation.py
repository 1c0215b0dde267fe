"""Rewrite 4: a permutation whose result is only measured by its norm is dropped.

‖Wp v‖²  =  ‖v‖²   for an orthogonal Wp
"""

import numpy as np
import onnx_graphsurgeon as gs

from export.passes.rewrite import (
    Match,
    ModelFacts,
    Rewrite,
    gemm_bias,
    gemm_weight,
    has_other_readers,
    is_over_channels,
    producer,
)

# A float32 QR of 2048 columns is orthogonal to about 2e-6; a trained or quantised matrix is not near this.
ORTHOGONAL_TOLERANCE = 1e-4


def _find(node: gs.Node) -> Match | None:
    if node.op != "Mul" or len(node.inputs) != 2 or node.inputs[0] is not node.inputs[1]:
        return None
    gemm = producer(node.inputs[0], "Gemm")
    return {"gemm": gemm, "square": node} if gemm else None


def _check(graph: gs.Graph, match: Match) -> str | None:
    gemm, square = match["gemm"], match["square"]
    if has_other_readers(graph, gemm.outputs[0], square):
        return "the permuted vector is read elsewhere"
    squares = square.outputs[0]
    if any(squares is output for output in graph.outputs) or any(node.op != "ReduceSum" for node in squares.outputs):
        return "the squares are not only summed"
    if not all(is_over_channels(node) for node in squares.outputs):
        return "the squares are not summed over the channels alone"
    weight, bias = gemm_weight(gemm), gemm_bias(gemm)
    if weight is None or bias is None or bias.any():
        return "a constant matrix without a bias was expected"
    error = np.abs(weight.T @ weight - np.eye(weight.shape[1], dtype=weight.dtype)).max()
    return None if error <= ORTHOGONAL_TOLERANCE else f"the matrix is not orthogonal, WᵀW - I reaches {error:.1e}"


def _apply(graph: gs.Graph, match: Match) -> None:
    unpermuted = match["gemm"].inputs[0]
    match["square"].inputs = [unpermuted, unpermuted]


def _expected(facts: ModelFacts) -> int:
    return facts.taps


REWRITE = Rewrite("last permutation dropped", _find, _check, _apply, _expected)
