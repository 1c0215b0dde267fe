"""Rewrite 10: the taps' maps are upsampled by matrix products, and all of them are summed by one.

    S = Σ_k (1 - up_k(p_k)),      up_k(p) = R_k p C_kᵀ,   R (H, h) and C (W, w) linear interpolation, corners aligned
      = K - [R_1 R_2 R_3] [p_1 C_1ᵀ; p_2 C_2ᵀ; p_3 C_3ᵀ]

A map that has the target's size already is subtracted as it is. Where an interpolation is a general operator that
walks over one channel, this is two small products; and no shape has to be computed for a batch of unknown size.
"""

from dataclasses import dataclass, field

import numpy as np
import onnx_graphsurgeon as gs

from export.passes.rewrite import Match, ModelFacts, Rewrite, constant, insert, producer, scalar_and_other
from runtime.images.interpolation import interpolation


@dataclass
class _Maps:
    """What a sum of 1 - map is made of: the maps (B, h, w), how many ones, and why it is not such a sum."""

    ones: float = 0.0
    upsampled: list[tuple[gs.Tensor, tuple[int, int], tuple[int, int]]] = field(default_factory=list)
    plain: list[gs.Tensor] = field(default_factory=list)
    unread: str = ""

    def add(self, tensor: gs.Tensor) -> None:
        """Read `tensor` as a sum of 1 - map."""
        node = producer(tensor, "Add", "Sub")
        if node is not None and node.op == "Add":
            self.add(node.inputs[0])
            self.add(node.inputs[1])
            return
        split = scalar_and_other(node) if node is not None else None
        if node is None or split is None or split[1] is not node.inputs[1]:
            self.unread = f"{tensor.name} is no sum of 1 - map"
            return
        self.ones += split[0]
        resize = _resize(split[1])
        if resize is None:
            self.plain.append(split[1])
            return
        source, target = producer(resize.inputs[0], "Unsqueeze"), _target(resize)
        size = _size(source.inputs[0]) if source else None
        if source is None or target is None or size is None:
            self.unread = f"{resize.name}: the sizes or the layout are not understood"
            return
        self.upsampled.append((source.inputs[0], size, target))


def _resize(tensor: gs.Tensor) -> gs.Node | None:
    squeeze = producer(tensor, "Squeeze")
    return producer(squeeze.inputs[0], "Resize") if squeeze else None


def _target(resize: gs.Node) -> tuple[int, int] | None:
    """Return the (H, W) of a linear resize with aligned corners; None if it is another one."""
    attrs = resize.attrs
    if attrs.get("mode") != "linear" or attrs.get("coordinate_transformation_mode") != "align_corners":
        return None
    concat = producer(resize.inputs[3], "Concat") if len(resize.inputs) > 3 else None
    last = concat.inputs[-1] if concat else None
    if not isinstance(last, gs.Constant) or last.values.size < 2:
        return None
    return int(last.values[-2]), int(last.values[-1])


def _size(tensor: gs.Tensor) -> tuple[int, int] | None:
    """Return the (h, w) of a tap's map (B, h, w), told by the Reshape that it was laid out with."""
    node = producer(tensor, "Exp", "Sub", "Min", "Reshape")
    while node is not None and node.op != "Reshape":
        inputs = [t for t in node.inputs if not isinstance(t, gs.Constant)]
        node = producer(inputs[0], "Exp", "Sub", "Min", "Reshape") if len(inputs) == 1 else None
    shape = node.inputs[1].values if node is not None and isinstance(node.inputs[1], gs.Constant) else None
    return (int(shape[1]), int(shape[2])) if shape is not None and shape.size == 3 else None


def _find(node: gs.Node) -> Match | None:
    is_inner = any(reader.op == "Add" for output in node.outputs for reader in output.outputs)
    if node.op not in ("Add", "Sub") or is_inner:
        return None
    maps = _Maps()
    maps.add(node.outputs[0])
    return {"node": node, "maps": maps} if maps.upsampled else None


def _check(graph: gs.Graph, match: Match) -> str | None:
    maps = match["maps"]
    if len({target for _, _, target in maps.upsampled}) > 1:
        return "the maps are upsampled to different sizes"
    return str(maps.unread) or None


def _apply(graph: gs.Graph, match: Match) -> None:
    node, maps = match["node"], match["maps"]
    name = "score/map" if not maps.plain else "score/grid"
    rows, widened = [], []
    for index, (tensor, (height, width), (target_height, target_width)) in enumerate(maps.upsampled):
        columns = constant(f"{name}/columns{index}", interpolation(target_width, width).T)
        widened.append(insert(graph, "MatMul", f"{name}/widened{index}", [tensor, columns]))
        rows.append(interpolation(target_height, height))
    stacked = widened[0]
    if len(widened) > 1:
        stacked = insert(graph, "Concat", f"{name}/stacked", widened, {"axis": 1})
    negative = constant(f"{name}/rows", -np.concatenate(rows, axis=1))
    total = insert(graph, "MatMul", f"{name}/heightened", [negative, stacked])
    for index, plain in enumerate(maps.plain):
        total = insert(graph, "Sub", f"{name}/plain{index}", [total, plain])
    out, node.outputs = node.outputs[0], []
    inputs = [total, constant(f"{name}/ones", maps.ones)]
    graph.nodes.append(gs.Node("Add", f"{name}/sum", inputs=inputs, outputs=[out]))


def _expected(facts: ModelFacts) -> int:
    return facts.maps


REWRITE = Rewrite("maps upsampled by products", _find, _check, _apply, _expected)
