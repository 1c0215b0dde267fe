"""Lower a graph to opset 17, the newest that TensorRT 8.6 parses (JetPack 6.0); torch's exporter starts at 18.

What 18 changed is moved back where 17 can say the same, and refused where it cannot:

    ReduceMax(x, axes)               ->  ReduceMax(x) with axes as an attribute (ReduceSum took the input in 13)
    Split(x, sizes; num_outputs)     ->  Split(x, sizes)
    Resize(...; antialias=0, keep_aspect_ratio_policy="stretch")  ->  Resize(...)
    Pad(x, pads, value)              ->  itself, over all axes (18 added some axes alone, 19 the mode "wrap")

Which operators changed is read from ONNX's own schemas, so a graph of a still newer opset is lowered or refused too.
"""

from collections.abc import Callable

import onnx_graphsurgeon as gs
from onnx.defs import SchemaError, get_schema
from onnx.helper import make_opsetid

from runtime.common.errors import UserError

OPSET = 17
IR_VERSION = 8  # the file format of ONNX 1.12, the first release with opset 17
_ONNX_DOMAINS = ("", "ai.onnx")
_RESIZE_DEFAULTS = {"antialias": 0, "keep_aspect_ratio_policy": "stretch"}


def lower_to_opset17(graph: gs.Graph) -> None:
    """Rewrite `graph` in place; one at opset 17 or below stays as it is.

    Raises `UserError` naming the node that opset 17 cannot express.
    """
    if graph.opset <= OPSET:
        return
    for node in graph.nodes:
        if not _changed(node, graph.opset):
            continue
        lower = _LOWERINGS.get(node.op)
        reason = lower(node) if lower else "its definition changed"
        if reason is not None:
            raise UserError(f"{node.name} ({node.op}) must be expressible in opset {OPSET}", reason)
    graph.opset = OPSET
    others = [imported for imported in graph.import_domains or () if imported.domain not in _ONNX_DOMAINS]
    graph.import_domains = [make_opsetid("", OPSET), *others]


def _changed(node: gs.Node, opset: int) -> bool:
    """Say whether the operator's definition at `opset` is newer than opset 17's, or is missing there."""
    if node.domain not in (None, *_ONNX_DOMAINS):  # versioned on its own
        return False
    try:
        old = get_schema(node.op, max_inclusive_version=OPSET)
    except SchemaError:
        return True
    return bool(old.since_version != get_schema(node.op, max_inclusive_version=opset).since_version)


def _lower_reduction(node: gs.Node) -> str | None:
    if node.attrs.pop("noop_with_empty_axes", 0):
        return "noop_with_empty_axes is set"
    if len(node.inputs) < 2 or node.inputs[1].is_empty():
        return None  # over all axes in either version
    axes = node.inputs[1]
    if not isinstance(axes, gs.Constant):
        return "its axes are computed"
    if axes.values.size:  # none means all, and so does the absent attribute
        node.attrs["axes"] = axes.values.tolist()
    node.inputs = node.inputs[:1]
    return None


def _lower_split(node: gs.Node) -> str | None:
    has_sizes = len(node.inputs) > 1 and not node.inputs[1].is_empty()
    if node.attrs.pop("num_outputs", None) is not None and not has_sizes:
        return "num_outputs without sizes"  # 18 allows a smaller last part, 17 does not
    return None


def _lower_resize(node: gs.Node) -> str | None:
    if "axes" in node.attrs:
        return "axes is set"
    for name, default in _RESIZE_DEFAULTS.items():
        value = node.attrs.pop(name, default)
        if value != default:
            return f"{name} is {value!r}"
    return None


def _lower_pad(node: gs.Node) -> str | None:
    if len(node.inputs) > 3 and not node.inputs[3].is_empty():
        return "axes is set"
    if node.attrs.get("mode") == "wrap":
        return "mode is 'wrap'"
    node.inputs = node.inputs[:3]  # an empty fourth, that 17 does not know
    return None


_REDUCTIONS = (
    *("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax"),
    *("ReduceMean", "ReduceMin", "ReduceProd", "ReduceSumSquare"),
)
_LOWERINGS: dict[str, Callable[[gs.Node], str | None]] = {
    **dict.fromkeys(_REDUCTIONS, _lower_reduction),
    "Split": _lower_split,
    "Resize": _lower_resize,
    "Pad": _lower_pad,
}
