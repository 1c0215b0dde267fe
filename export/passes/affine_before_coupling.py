"""Rewrite 9: a global affine behind a coupling moves in front of it, where a product or another affine takes it up.

    g ⊙ [x1; x2 ⊙ e^s + t] + o  =  [x1'; x2' ⊙ e^s + t'],      x1' = g1 ⊙ x1 + o1,   x2' = g2 ⊙ x2,   t' = g2 ⊙ t + o2
    the subnet then reads x1' :  W1 x1  =  (W1 diag 1/g1) x1' - W1 (o1/g1)

x1' and x2' are the halves of the permutation before: rows of its matrix where it is soft; where it is hard, its
affine is merged with this one, and block after block all of them end up as one in front of the decoder. Rewrite 2
has taken up every affine that a soft permutation follows, so of those only a stage's last block's is left to move.
"""

import numpy as np
import onnx_graphsurgeon as gs

from export.passes.rewrite import (
    Array,
    Match,
    ModelFacts,
    Rewrite,
    constant,
    constant_and_other,
    gemm_bias,
    gemm_weight,
    has_other_readers,
    insert,
    producer,
    set_gemm,
)

SMALLEST_SCALE = 1e-3  # 1/g is folded into a weight; a trained g lies around 1


def _find(node: gs.Node) -> Match | None:
    offset = constant_and_other(node) if node.op == "Add" else None
    mul = producer(offset[1], "Mul") if offset else None
    scale = constant_and_other(mul) if mul else None
    concat = producer(scale[1], "Concat") if scale else None
    if offset is None or scale is None or concat is None or len(concat.inputs) != 2:
        return None
    shifted = producer(concat.inputs[1], "Add")
    if shifted is None:
        return None
    scaled = next((n for n in (producer(t, "Mul") for t in shifted.inputs) if n), None)
    if scaled is None or producer(scaled.inputs[1], "Exp") is None:
        return None
    translation = next(tensor for tensor in shifted.inputs if tensor is not scaled.outputs[0])
    return {
        "add": node,
        "concat": concat,
        "between": (mul, node),
        "scale": scale[0].reshape(-1).astype(np.float64),
        "offset": offset[0].reshape(-1).astype(np.float64),
        "passive": concat.inputs[0],
        "active": scaled.inputs[0],
        "coupling": (scaled, shifted),
        "shift": producer(translation, "Gemm"),
    }


def _check(graph: gs.Graph, match: Match) -> str | None:
    concat, (mul, _), (scaled, shifted) = match["concat"], match["between"], match["coupling"]
    inner = ((concat, mul), (mul, match["add"]), (scaled, shifted), (shifted, concat))
    if any(has_other_readers(graph, maker.outputs[0], reader) for maker, reader in inner):
        return "a value on the way is read elsewhere"
    shift = match["shift"]
    weight = gemm_weight(shift) if shift is not None else None
    if weight is None or gemm_bias(shift) is None or len(shift.outputs[0].outputs) != 1:
        return "the coupling's shift must be a plain product's result and read once"
    if match["scale"].size != match["offset"].size or match["scale"].size != 2 * len(weight):
        return "one scale and one offset for each channel were expected"
    if np.abs(match["scale"]).min() < SMALLEST_SCALE:
        return f"a scale is below {SMALLEST_SCALE}, which a product cannot take back"
    if _subnet(match) is None:
        return "the passive half must be read by this coupling's first layer and nothing else"
    if len(match["active"].outputs) != 1:
        return "the active half is read elsewhere"
    return None if _source(graph, match) is not None else "what makes the two halves is not understood"


def _subnet(match: Match) -> gs.Node | None:
    """Return the plain product, beside the coupling itself the only reader of the passive half."""
    readers = [node for node in match["passive"].outputs if node is not match["concat"]]
    if len(readers) != 1 or len(match["passive"].outputs) != 2:
        return None
    return readers[0] if gemm_weight(readers[0]) is not None and gemm_bias(readers[0]) is not None else None


def _source(graph: gs.Graph, match: Match) -> list[gs.Node] | None:
    """Return what makes the halves: two products, two gathers of one affine, or the tap's Split."""
    makers = (producer(match[half], "Gemm", "Gather", "Split") for half in ("passive", "active"))
    nodes = [node for node in makers if node is not None]
    if len(nodes) != 2 or nodes[0].op != nodes[1].op:
        return None
    if nodes[0].op == "Gemm":
        return nodes if all(gemm_bias(node) is not None for node in nodes) else None
    if nodes[0].op == "Split":
        outputs = list(nodes[0].outputs)
        is_whole = len(outputs) == 2 and outputs[0] is match["passive"] and outputs[1] is match["active"]
        return [nodes[0]] if is_whole else None
    add = producer(nodes[0].inputs[0], "Add")
    offset = constant_and_other(add) if add is not None else None
    mul = producer(offset[1], "Mul") if offset is not None else None
    if add is None or mul is None or constant_and_other(mul) is None or nodes[1].inputs[0] is not nodes[0].inputs[0]:
        return None
    only_gathered = len(add.outputs[0].outputs) == 2 and not has_other_readers(graph, mul.outputs[0], add)
    return [*nodes, mul, add] if only_gathered else None


def _apply(graph: gs.Graph, match: Match) -> None:
    half = len(match["scale"]) // 2
    (g1, g2), (o1, o2) = np.split(match["scale"], [half]), np.split(match["offset"], [half])
    source, subnet, shift = _source(graph, match), _subnet(match), match["shift"]
    assert source is not None and subnet is not None
    _scale_rows(shift, g2, o2)
    weight, bias = _wide(subnet)
    weight = weight / g1
    set_gemm(subnet, subnet.inputs[0], weight, bias - weight @ o1)
    if source[0].op == "Gemm":
        _scale_rows(source[0], g1, o1)
        _scale_rows(source[1], g2, np.zeros_like(o2))
    else:
        _scale_input(graph, source, np.concatenate([g1, g2]), np.concatenate([o1, np.zeros_like(o2)]))
    match["concat"].outputs, match["add"].outputs = match["add"].outputs, []


def _wide(gemm: gs.Node) -> tuple[Array, Array]:
    weight, bias = gemm_weight(gemm), gemm_bias(gemm)
    assert weight is not None and bias is not None
    return weight.astype(np.float64), bias.astype(np.float64)


def _scale_rows(gemm: gs.Node, scale: Array, offset: Array) -> None:
    """Let `gemm` give scale ⊙ its result + offset."""
    weight, bias = _wide(gemm)
    set_gemm(gemm, gemm.inputs[0], weight * scale[:, None], bias * scale + offset)


def _scale_input(graph: gs.Graph, source: list[gs.Node], scale: Array, offset: Array) -> None:
    """Let the halves that a Split or two Gathers cut out be scale ⊙ them + offset."""
    if source[0].op == "Split":
        name = source[0].name.rpartition("/")[0]
        x = insert(graph, "Mul", f"{name}/scaled", [source[0].inputs[0], constant(f"{name}/scale", scale)])
        source[0].inputs[0] = insert(graph, "Add", f"{name}/affine", [x, constant(f"{name}/offset", offset)])
        return
    *gathers, mul, add = source
    channels = np.concatenate([gather.inputs[1].values for gather in gathers])
    for node in (mul, add):
        split = constant_and_other(node)
        assert split is not None
        values, x = split
        widened = np.broadcast_to(values.reshape(-1), scale.shape).astype(np.float64)
        widened[channels] = widened[channels] * scale + (offset if node is add else 0)
        node.inputs = [x, constant(f"{node.name}/folded", widened)]


def _expected(facts: ModelFacts) -> int:
    return facts.stages if facts.soft_permutation else facts.blocks


REWRITE = Rewrite("global affine before its coupling", _find, _check, _apply, _expected, backwards=True)
