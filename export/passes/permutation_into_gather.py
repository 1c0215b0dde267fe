"""Rewrite 7: a hard permutation picks channels, which needs no matrix product.

y = Wp x,  Wp with a single 1 in each row     =>     y_j = x_p(j)
"""

import onnx_graphsurgeon as gs

from export.passes.rewrite import Match, ModelFacts, Rewrite, constant, gemm_bias, gemm_weight


def _find(node: gs.Node) -> Match | None:
    weight = gemm_weight(node)
    if weight is None or weight.shape[0] != weight.shape[1] or not ((weight == 0) | (weight == 1)).all():
        return None
    return {"gemm": node, "weight": weight}


def _check(graph: gs.Graph, match: Match) -> str | None:
    weight, bias = match["weight"], gemm_bias(match["gemm"])
    if bias is None or bias.any():
        return "a bias was not expected"
    if (weight.sum(axis=0) != 1).any() or (weight.sum(axis=1) != 1).any():
        return "the matrix of zeros and ones is no permutation"
    return None


def _apply(graph: gs.Graph, match: Match) -> None:
    gemm = match["gemm"]
    gemm.op, gemm.attrs = "Gather", {"axis": 1}
    gemm.inputs = [gemm.inputs[0], constant(f"{gemm.name}/channels", match["weight"].argmax(axis=1))]


def _expected(facts: ModelFacts) -> int:
    return 0 if facts.soft_permutation else facts.blocks - facts.stages  # dropped before


REWRITE = Rewrite("hard permutation into gather", _find, _check, _apply, _expected)
