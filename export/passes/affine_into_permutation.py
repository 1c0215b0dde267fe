"""Rewrite 2: the global affine moves into the permutation.

Wp (g ⊙ x + o)  =  (Wp diag g) x + Wp o
"""

import numpy as np
import onnx_graphsurgeon as gs

from export.passes.rewrite import (
    Array,
    Match,
    ModelFacts,
    Rewrite,
    constant_and_other,
    gemm_bias,
    gemm_weight,
    has_other_readers,
    producer,
    set_gemm,
)


def _find(node: gs.Node) -> Match | None:
    add = producer(node.inputs[0], "Add") if node.op == "Gemm" else None
    offset = constant_and_other(add) if add else None
    mul = producer(offset[1], "Mul") if offset else None
    scale = constant_and_other(mul) if mul else None
    if offset is None or scale is None:
        return None
    return {"gemm": node, "add": add, "mul": mul, "offset": offset[0], "scale": scale[0], "x": scale[1]}


def _check(graph: gs.Graph, match: Match) -> str | None:
    weight = gemm_weight(match["gemm"])
    if weight is None or gemm_bias(match["gemm"]) is None:
        return "its weight and bias must be plain constants"
    channels = weight.shape[1]
    if not all(_is_per_channel(values, channels) for values in (match["scale"], match["offset"])):
        return f"scale and offset must hold one value or one for each of {channels} channels"
    if has_other_readers(graph, match["add"].outputs[0], match["gemm"]):
        return "the affine's result is read elsewhere"
    return None


def _is_per_channel(values: Array, channels: int) -> bool:
    return values.size == 1 or (values.size == channels and values.shape[-1] == channels)


def _apply(graph: gs.Graph, match: Match) -> None:
    gemm = match["gemm"]
    weight, bias = gemm_weight(gemm), gemm_bias(gemm)
    assert weight is not None and bias is not None
    wide = weight.astype(np.float64)
    offset = np.broadcast_to(match["offset"].reshape(-1), (wide.shape[1],))
    set_gemm(gemm, match["x"], wide * match["scale"].reshape(-1), wide @ offset + bias)


def _expected(facts: ModelFacts) -> int:
    # A stage's last permutation is dropped before, or was none; hard ones are no products any more.
    return facts.blocks - facts.stages if facts.soft_permutation else 0


REWRITE = Rewrite("global affine into permutation", _find, _check, _apply, _expected)
