"""Rewrite 12: the decoders' products become 1 x 1 convolutions, so that nothing is laid out anew.

    (B, D, h, w) -> transpose, reshape -> (B·h·w, D) -> products -> (B·h·w) -> reshape -> (B, h, w)
    is   (B, D, h, w) -> 1 x 1 convolutions -> (B, h, w),   channels being axis 1 in both

The position's bias tables need no reshape either: (h, 1, C) and (1, w, C) become (1, C, h, 1) and (1, C, 1, w), and
those that a tile's place chooses an entry of, (tiles, h, 1, C), become (tiles, C, h, 1).
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from export.passes.rewrite import (
    Match,
    ModelFacts,
    Rewrite,
    constant,
    gemm_bias,
    gemm_weight,
    is_over_channels,
    tables_behind,
)

_ANY_LAYOUT = ("Relu", "Tanh", "Exp")
_ELEMENTWISE = ("Add", "Sub", "Mul", "Div", "Sum")
_OVER_CHANNELS = ("Split", "Concat", "Gather")
_REDUCTIONS = ("ReduceSum", "ReduceSumSquare")


@dataclass
class _Region:
    """A decoder's nodes from the tap's Reshape to the grid of its likelihoods, by what becomes of them."""

    nodes: list[gs.Node] = field(default_factory=list)
    tables: dict[int, gs.Node] = field(default_factory=dict)  # nodes that add a position's bias to (B, h, w, C)
    unread: str = ""


def _find(node: gs.Node) -> Match | None:
    source = node.inputs[0].inputs[0] if node.op == "Reshape" and node.inputs[0].inputs else None
    if source is None or source.op != "Transpose" or source.attrs.get("perm") != [0, 2, 3, 1]:
        return None
    if not _is_fibers(node):
        return None
    return {"transpose": source, "reshape": node, "region": _read(node)}


def _is_fibers(reshape: gs.Node) -> bool:
    shape = reshape.inputs[1]
    return isinstance(shape, gs.Constant) and shape.values.size == 2 and shape.values[0] == -1


def _is_grid(reshape: gs.Node, sides: int) -> bool:
    shape = reshape.inputs[1]
    return isinstance(shape, gs.Constant) and shape.values.size == sides and shape.values[0] == -1


def _read(entry: gs.Node) -> _Region:
    """Walk from the fibers to the grid, noting every node on the way."""
    region, seen = _Region(), {id(entry)}
    waiting = [reader for output in entry.outputs for reader in output.outputs]
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        region.nodes.append(node)
        reason = _refusal(node, region)
        if reason is not None:
            region.unread = f"{node.name} ({node.op}): {reason}"
            return region
        if node.op != "Reshape" or not _is_grid(node, 3):
            waiting += [reader for output in node.outputs for reader in output.outputs]
    return region


def _refusal(node: gs.Node, region: _Region) -> str | None:
    """Say why a node cannot be moved to images; None if it can."""
    if node.op == "Gemm":
        plain = gemm_weight(node) is not None and gemm_bias(node) is not None
        return None if plain else "its weight and bias must be plain constants"
    if node.op in _OVER_CHANNELS:
        return None if node.attrs.get("axis", 0) == 1 else "not over the channels"
    if node.op in _REDUCTIONS:
        return None if is_over_channels(node) else "not over the channels alone"
    if node.op == "Reshape":
        return None if _is_fibers(node) or _is_grid(node, 3) or _is_grid(node, 4) else "of an unknown layout"
    if node.op in _ELEMENTWISE:
        return _read_constants(node, region)
    return None if node.op in _ANY_LAYOUT else "of an unknown layout"


def _read_constants(node: gs.Node, region: _Region) -> str | None:
    for tensor in node.inputs:
        for table in tables_behind(tensor):
            if table.values.ndim != 4 or len(table.outputs) != 1:
                return f"a table of shape {table.values.shape}"
        if not isinstance(tensor, gs.Constant) or tensor.values.size == 1:
            continue
        shape = tensor.values.shape
        if len(shape) == 3 and 1 in shape[:2]:
            region.tables[id(node)] = node
        elif tensor.values.size != shape[-1]:
            return f"a constant of shape {shape}"
    return None


def _check(graph: gs.Graph, match: Match) -> str | None:
    region = match["region"]
    outputs = {id(tensor) for tensor in graph.outputs}
    if any(id(output) in outputs for node in region.nodes for output in node.outputs):
        return "a value inside the decoder is an output"
    if region.unread:
        return str(region.unread)
    return "the tap's fibers are not read" if not match["reshape"].outputs[0].outputs else None


def _apply(graph: gs.Graph, match: Match) -> None:
    region = match["region"]
    _bypass(match["reshape"], match["transpose"].inputs[0])
    for node in region.nodes:
        if node.op == "Gemm":
            _to_convolution(node)
        elif node.op == "Reshape":
            _bypass(node, node.inputs[0])
        elif node.op in _ELEMENTWISE:
            node.inputs = [_as_image(node, tensor, id(node) in region.tables) for tensor in node.inputs]
    for tensor in {id(t): t for node in region.nodes for t in node.outputs}.values():
        tensor.shape = None  # it was the fibers'


def _bypass(node: gs.Node, source: gs.Tensor) -> None:
    """Let everything that reads `node`'s output read `source`."""
    for reader in list(node.outputs[0].outputs):
        reader.inputs = [source if tensor is node.outputs[0] else tensor for tensor in reader.inputs]
    node.outputs.clear()


def _to_convolution(gemm: gs.Node) -> None:
    weight = gemm_weight(gemm)
    assert weight is not None
    bias = gemm.inputs[2:3] and [constant(f"{gemm.name}/bias", gemm_bias(gemm))]
    gemm.inputs = [gemm.inputs[0], constant(f"{gemm.name}/weight", weight[:, :, None, None]), *bias]
    gemm.op, gemm.attrs = "Conv", {"kernel_shape": [1, 1]}


def _as_image(node: gs.Node, tensor: gs.Tensor, is_table: bool) -> gs.Tensor:
    """Return a constant as it must be for channels on axis 1; of what is chosen from tables these; else as it is."""
    for table in tables_behind(tensor):
        table.values = np.ascontiguousarray(np.moveaxis(table.values, -1, 1))
    if not isinstance(tensor, gs.Constant) or tensor.values.size == 1:
        return tensor
    values: Any = tensor.values
    image = np.moveaxis(values, -1, 0)[None] if is_table else values.reshape(1, -1, 1, 1)
    is_shared = len(tensor.outputs) > 1
    return constant(f"{node.name}/{tensor.name}" if is_shared else tensor.name, image)


def _expected(facts: ModelFacts) -> int:
    return facts.taps


REWRITE = Rewrite("fibers into images (1 x 1 convolutions)", _find, _check, _apply, _expected)
