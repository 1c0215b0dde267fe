"""Rewrite 3: a constant factor behind a subnet's last layer moves into its weights.

0.1 (W2 h + b2)  =  (0.1 W2) h + 0.1 b2
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
    producer,
    scalar_and_other,
    set_gemm,
)


def _find(node: gs.Node) -> Match | None:
    scaled = scalar_and_other(node) if node.op == "Mul" else None
    gemm = scaled and producer(scaled[1], "Gemm")
    return {"gemm": gemm, "mul": node, "factor": scaled[0]} if scaled and gemm else None


def _check(graph: gs.Graph, match: Match) -> str | None:
    if gemm_weight(match["gemm"]) is None or gemm_bias(match["gemm"]) is None:
        return "its weight and bias must be plain constants"
    if has_other_readers(graph, match["gemm"].outputs[0], match["mul"]):
        return "the unscaled product is read elsewhere"
    return None


def _apply(graph: gs.Graph, match: Match) -> None:
    gemm, factor = match["gemm"], match["factor"]
    weight, bias = gemm_weight(gemm), gemm_bias(gemm)
    assert weight is not None and bias is not None
    set_gemm(gemm, gemm.inputs[0], weight.astype(np.float64) * factor, bias.astype(np.float64) * factor)
    gemm.outputs, match["mul"].outputs = match["mul"].outputs, []


def _expected(facts: ModelFacts) -> int:
    return facts.blocks


REWRITE = Rewrite("constant factor into subnet", _find, _check, _apply, _expected)
