"""Rewrite: a coupling's two halves that are joined only to be split again stay two.

    split([x1; x2'])  ->  x1, x2'

It stands where half of the channels are factored out: x1 goes on, x2' is only measured by its norm. The affine between
has moved in front of the coupling before (`affine_before_coupling`).
"""

import onnx_graphsurgeon as gs

from export.passes.rewrite import Match, ModelFacts, Rewrite, has_other_readers, producer


def _find(node: gs.Node) -> Match | None:
    concat = producer(node.inputs[0], "Concat") if node.op == "Split" else None
    if concat is None or len(concat.inputs) != len(node.outputs):
        return None
    return {"split": node, "concat": concat}


def _check(graph: gs.Graph, match: Match) -> str | None:
    split, concat = match["split"], match["concat"]
    if split.attrs.get("axis", 0) != 1 or concat.attrs.get("axis") not in (1, -1):
        return "they are not joined and split over the channels"
    if has_other_readers(graph, concat.outputs[0], split):
        return "the joined halves are read elsewhere"
    joined, parts = (
        [tensor.shape[-1] if tensor.shape else 0 for tensor in node] for node in (concat.inputs, split.outputs)
    )
    return None if joined == parts and all(parts) else f"joined of {joined} channels, split into {parts}"


def _apply(_: gs.Graph, match: Match) -> None:
    for old, new in zip(match["split"].outputs, match["concat"].inputs, strict=True):
        for reader in list(old.outputs):
            reader.inputs = [new if tensor is old else tensor for tensor in reader.inputs]
    match["split"].outputs.clear()


def _expected(facts: ModelFacts) -> int:
    return facts.stages - facts.taps


REWRITE = Rewrite("halves of a coupling not joined", _find, _check, _apply, _expected)
