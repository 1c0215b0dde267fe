"""Rewrite 5: everything constant in a tap's log-likelihood becomes one scalar, all Σs one reduction.

    ((Σ_b (Σ_i s_bi + Σ_i log g_bi) - ½ Σ_i u_i² - D/2 ln 2π) / D - m) / τ
        =  a Σ_i (s_1 + ... + s_8)_i + b Σ_i u_i² + c

Where channels are factored out on the way, blocks of two widths and two norms are left, each with one reduction.

The expression in front of the score's min(·, 0), or min(·, q) with a q <= 0 of every place, is read as an affine
combination of reductions, whatever the order its terms were written in.
"""

from dataclasses import dataclass, field

import numpy as np
import onnx_graphsurgeon as gs

from export.passes.rewrite import (
    Match,
    ModelFacts,
    Rewrite,
    constant,
    constant_and_other,
    insert,
    is_over_channels,
    producer,
    scalar_and_other,
)


@dataclass
class _Affine:
    """Σ factor·reduction + offset, every reduction (N,) over the channels of an (N, D) tensor."""

    offset: float = 0.0
    terms: list[tuple[float, gs.Node]] = field(default_factory=list)
    unread: str = ""

    def add(self, factor: float, tensor: gs.Tensor) -> None:
        """Add `factor` times what `tensor` holds, following sums, differences and constant factors."""
        if isinstance(tensor, gs.Constant) and tensor.values.size == 1:
            self.offset += factor * float(tensor.values.reshape(()))
            return
        node = None if isinstance(tensor, gs.Constant) or not tensor.inputs else tensor.inputs[0]
        if node is None:
            self.unread = f"{tensor.name} is neither computed nor a scalar"
        elif node.op == "Reshape":
            self.add(factor, node.inputs[0])
        elif node.op in ("Add", "Sub"):
            self.add(factor, node.inputs[0])
            self.add(-factor if node.op == "Sub" else factor, node.inputs[1])
        elif node.op == "ReduceSum":
            self.terms.append((factor, node))
        elif node.op == "ConstantOfShape" and not np.any(getattr(node.attrs.get("value"), "values", 0)):
            return  # the zero that the log-determinants' sum starts from
        else:
            self._scale(factor, node)

    def _scale(self, factor: float, node: gs.Node) -> None:
        scaled = scalar_and_other(node)
        if node.op == "Mul" and scaled:
            self.add(factor * scaled[0], scaled[1])
        elif node.op == "Div" and scaled and scaled[1] is node.inputs[0]:
            self.add(factor / scaled[0], scaled[1])
        else:
            self.unread = f"{node.name} ({node.op}) is not affine in the reductions"


def _find(node: gs.Node) -> Match | None:
    limited = constant_and_other(node) if node.op == "Min" else None
    reshape = _first_reshape(limited[1]) if limited and not (limited[0] > 0).any() else None
    if limited is None or reshape is None or not isinstance(reshape.inputs[1], gs.Constant):
        return None
    affine = _Affine()
    affine.add(1.0, limited[1])
    squares = [(f, n) for f, n in affine.terms if _squared(n) is not None]
    sums = [(f, n) for f, n in affine.terms if _squared(n) is None]
    if not squares and len(sums) < 2:  # nothing left to merge
        return None
    return {
        "min": node,
        "affine": affine,
        "squares": squares,
        "sums": sums,
        "shape": reshape.inputs[1],
        "old": limited[1],
    }


_AFFINE = ("Sub", "Add", "Mul", "Div")


def _first_reshape(tensor: gs.Tensor) -> gs.Node | None:
    node = producer(tensor, "Reshape", *_AFFINE)
    while node is not None and node.op != "Reshape":
        node = producer(node.inputs[0], "Reshape", *_AFFINE)
    return node


def _squared(reduction: gs.Node) -> gs.Tensor | None:
    mul = producer(reduction.inputs[0], "Mul")
    return mul.inputs[0] if mul and len(mul.inputs) == 2 and mul.inputs[0] is mul.inputs[1] else None


def _check(graph: gs.Graph, match: Match) -> str | None:
    if match["affine"].unread:
        return str(match["affine"].unread)
    if not match["squares"]:
        return "no sum of squares was found"
    if not match["sums"]:
        return "no log-determinant was found"
    if not all(is_over_channels(node) for _, node in match["affine"].terms):
        return "a reduction is not over the channels alone"
    for terms, name in ((match["sums"], "log-determinants"), (match["squares"], "sums of squares")):
        factors = {round(factor, 12) for factor, _ in terms}
        if len(factors) != 1:
            return f"the {name} have different factors {sorted(factors)}"
    return None


def _apply(graph: gs.Graph, match: Match) -> None:
    name = match["sums"][0][1].name.split("/")[0]  # the tap
    axis = constant(f"{name}/channels", [1])
    by_width: dict[int, list[gs.Tensor]] = {}
    for _, node in match["sums"]:
        by_width.setdefault(int(node.inputs[0].shape[-1]), []).append(node.inputs[0])
    log_dets, norms = [], []
    for index, summed in enumerate(by_width.values()):
        total = insert(graph, "Sum", _numbered(f"{name}/log_scales", index), summed)
        of_width = _numbered(f"{name}/log_det_jacobian", index)
        log_dets.append(insert(graph, "ReduceSum", of_width, [total, axis], {"keepdims": 0}))
    for index, (_, square) in enumerate(match["squares"]):
        norm = _numbered(f"{name}/norm", index)
        norms.append(insert(graph, "ReduceSumSquare", norm, [_squared(square), axis], {"keepdims": 0}))
    log_det = _scaled(graph, f"{name}/log_det", log_dets, match["sums"][0][0])
    norm = _scaled(graph, f"{name}/norm", norms, match["squares"][0][0])
    logp = insert(graph, "Add", f"{name}/unshifted", [log_det, norm])
    logp = insert(graph, "Add", f"{name}/excess_fibers", [logp, constant(f"{name}/offset", match["affine"].offset)])
    grid = insert(graph, "Reshape", f"{name}/excess", [logp, match["shape"]])
    match["min"].inputs = [grid if tensor is match["old"] else tensor for tensor in match["min"].inputs]


def _numbered(name: str, index: int) -> str:
    return f"{name}{index}" if index else name


def _scaled(graph: gs.Graph, name: str, terms: list[gs.Tensor], factor: float) -> gs.Tensor:
    """Return the sum of `terms`, scaled."""
    total = terms[0] if len(terms) == 1 else insert(graph, "Sum", f"{name}_total", terms)
    scaled: gs.Tensor = insert(graph, "Mul", f"{name}_scaled", [total, constant(f"{name}_factor", factor)])
    return scaled


def _expected(facts: ModelFacts) -> int:
    return facts.taps


REWRITE = Rewrite("log-determinants and constants merged", _find, _check, _apply, _expected)
