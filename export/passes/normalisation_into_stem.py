"""Rewrite 11: the scale of the frames' normalisation moves into the first convolution.

    K * (s ⊙ x - o)  =  (K diag s) * (x - o/s)

The offset stays, so that what the convolution pads with keeps meaning: zero, the mean's colour.
"""

import numpy as np
import onnx_graphsurgeon as gs

from export.passes.rewrite import Match, ModelFacts, Rewrite, constant, constant_and_other, has_other_readers, producer

_BETWEEN = ("Pad", "Sub", "Add")


def _find(node: gs.Node) -> Match | None:
    if node.op != "Conv":
        return None
    pad = producer(node.inputs[0], "Pad")
    offset = producer((pad or node).inputs[0], "Sub", "Add")
    mul = producer(offset.inputs[0], "Mul") if offset and constant_and_other(offset) else None
    if offset is None or mul is None or constant_and_other(mul) is None:
        return None
    return {"conv": node, "pad": pad, "offset": offset, "mul": mul}


def _check(graph: gs.Graph, match: Match) -> str | None:
    conv, offset, mul = match["conv"], match["offset"], match["mul"]
    weight = conv.inputs[1]
    if not isinstance(weight, gs.Constant) or conv.attrs.get("group", 1) != 1:
        return "an ungrouped convolution with constant weights was expected"
    channels = weight.values.shape[1]
    for node in (offset, mul):
        split = constant_and_other(node)
        if split is None or split[0].shape not in ((channels, 1, 1), (1, channels, 1, 1)):
            return f"{node.name}: one value for each of {channels} channels was expected"
    if match["pad"] is not None and match["pad"].attrs.get("mode") != "reflect":
        return "the frame is padded by something else than itself"
    readers = ((mul, offset), (offset, match["pad"] or conv))
    if any(has_other_readers(graph, maker.outputs[0], reader) for maker, reader in readers):
        return "the normalised frame is read elsewhere"
    scale = constant_and_other(mul)
    return None if scale is not None and (scale[0] != 0).all() else "a scale is zero"


def _apply(graph: gs.Graph, match: Match) -> None:
    conv, offset, mul = match["conv"], match["offset"], match["mul"]
    (scale, frame), (shift, _) = constant_and_other(mul), constant_and_other(offset)  # type: ignore[misc]
    scale = scale.reshape(1, -1, 1, 1).astype(np.float64)
    conv.inputs[1] = constant(f"{conv.name}/weight", conv.inputs[1].values * scale)
    name = f"{offset.name}/mean"
    offset.inputs = [frame, constant(name, shift.reshape(1, -1, 1, 1) / scale)]


def _expected(facts: ModelFacts) -> int:
    return 1


REWRITE = Rewrite("normalisation into the stem", _find, _check, _apply, _expected)
