"""Rewrite: the norm of channels that left the chain at different blocks is the sum of their norms.

    ‖[u; v]‖²  =  ‖u‖² + ‖v‖²

So nothing is laid side by side only to be summed, and the permutation in front of u is one that only a norm reads.
"""

import onnx_graphsurgeon as gs

from export.passes.rewrite import Match, ModelFacts, Rewrite, has_other_readers, insert, is_over_channels, producer


def _find(node: gs.Node) -> Match | None:
    square = producer(node.inputs[0], "Mul") if node.op == "ReduceSum" else None
    if square is None or len(square.inputs) != 2 or square.inputs[0] is not square.inputs[1]:
        return None
    concat = producer(square.inputs[0], "Concat")
    return {"sum": node, "square": square, "concat": concat} if concat else None


def _check(graph: gs.Graph, match: Match) -> str | None:
    if not is_over_channels(match["sum"]) or match["concat"].attrs.get("axis") not in (1, -1):
        return "the parts are not joined and summed over the channels alone"
    if has_other_readers(graph, match["concat"].outputs[0], match["square"]):
        return "the joined channels are read elsewhere"
    return (
        "the squares are read elsewhere" if has_other_readers(graph, match["square"].outputs[0], match["sum"]) else None
    )


def _apply(graph: gs.Graph, match: Match) -> None:
    reduction = match["sum"]
    sums = []
    for index, part in enumerate(match["concat"].inputs):
        name = f"{reduction.name}/part{index}"
        square = insert(graph, "Mul", f"{name}/square", [part, part])
        sums.append(insert(graph, "ReduceSum", name, [square, *reduction.inputs[1:]], dict(reduction.attrs)))
    out, reduction.outputs = reduction.outputs[0], []
    graph.nodes.append(gs.Node("Add", f"{reduction.name}/parts", inputs=sums, outputs=[out]))


def _expected(facts: ModelFacts) -> int:
    return facts.stages - facts.taps


REWRITE = Rewrite("norm of factored channels by parts", _find, _check, _apply, _expected)
