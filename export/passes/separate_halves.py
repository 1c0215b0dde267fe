"""Rewrite 8: a result that is only ever read by halves is made as two results.

    [a; b] = W x + v           ->   a = W_a x + v_a,   b = W_b x + v_b          (a matrix product)
    [a; b]_j = x_p(j)          ->   a_j = x_p(j),      b_j = x_p(D/2 + j)       (a hard permutation)

The arithmetic is the same and nothing has to be cut out of memory again: a coupling's scale and shift, and the
permuted state's passive half (that the next subnet reads) and active half (that it transforms).
"""

import onnx_graphsurgeon as gs

from export.passes.rewrite import Match, ModelFacts, Rewrite, constant, gemm_bias, gemm_weight, set_gemm

_SUBNET, _STATE = ("scale", "shift"), ("passive", "active")


def _find(node: gs.Node) -> Match | None:
    if node.op not in ("Gemm", "Gather") or len(node.outputs[0].outputs) not in (1, 2):
        return None
    halves = _halves(node.outputs[0])
    return {"node": node, "halves": halves} if halves else None


def _halves(tensor: gs.Tensor) -> list[tuple[gs.Tensor, int, int]] | None:
    """Return [(part, first, end), ...], the two parts that `tensor` is cut into; None if it is not."""
    readers = list(tensor.outputs)
    if len(readers) == 1 and readers[0].op == "Split" and len(readers[0].outputs) == 2:
        sizes = readers[0].inputs[1] if len(readers[0].inputs) > 1 else None
        if readers[0].attrs.get("axis", 0) not in (1, -1) or not isinstance(sizes, gs.Constant):
            return None
        first = int(sizes.values[0])
        ends = (0, first, first + int(sizes.values[1]))
        return [(readers[0].outputs[i], ends[i], ends[i + 1]) for i in (0, 1)]
    if len(readers) == 2 and all(node.op == "Slice" for node in readers):
        bounds = [_slice_bounds(node) for node in readers]
        if None not in bounds:
            parts = [(node.outputs[0], *bound) for node, bound in zip(readers, bounds, strict=True) if bound]
            return sorted(parts, key=lambda part: part[1])
    return None


def _slice_bounds(node: gs.Node) -> tuple[int, int] | None:
    """Return (first, end) of a plain slice over the channels; None if it is another one."""
    if not all(isinstance(tensor, gs.Constant) and tensor.values.size == 1 for tensor in node.inputs[1:]):
        return None
    first, end, axis, *step = (int(tensor.values.reshape(())) for tensor in node.inputs[1:])
    return (first, end) if axis in (1, -1) and step in ([], [1]) else None


def _check(graph: gs.Graph, match: Match) -> str | None:
    node = match["node"]
    width = _width(node)
    if width is None:
        return "its weight and bias, or its indices, must be plain constants"
    if any(node.outputs[0] is output for output in graph.outputs):
        return "the whole is an output"
    (_, first, middle), (_, after, end) = match["halves"]
    if (first, after) != (0, middle) or end < width:
        return f"two parts that make up the whole were expected, found {first}..{middle} and {after}..{end} of {width}"
    return None


def _width(node: gs.Node) -> int | None:
    if node.op == "Gemm":
        weight, bias = gemm_weight(node), gemm_bias(node)
        return None if weight is None or bias is None else len(weight)
    indices = node.inputs[1]
    return indices.values.size if node.attrs.get("axis") == 1 and isinstance(indices, gs.Constant) else None


def _apply(graph: gs.Graph, match: Match) -> None:
    node = match["node"]
    stem = node.name.rpartition("/")[0]
    stem, names = (stem, _SUBNET) if "/subnet" in stem else (f"{stem}/permutation", _STATE)
    for name, (part, first, end) in zip(names, match["halves"], strict=True):
        part.inputs.clear()
        half = gs.Node(node.op, f"{stem}/{name}", outputs=[part])
        if node.op == "Gemm":
            weight, bias = gemm_weight(node), gemm_bias(node)
            assert weight is not None and bias is not None
            has_bias = len(node.inputs) > 2
            set_gemm(half, node.inputs[0], weight[first:end], bias[first:end] if has_bias else None)
        else:
            half.attrs = {"axis": 1}
            half.inputs = [node.inputs[0], constant(f"{half.name}/channels", node.inputs[1].values[first:end])]
        graph.nodes.append(half)
    node.outputs.clear()


def _expected(facts: ModelFacts) -> int:
    # Every subnet's last layer, and every permutation but a stage's last, which is dropped before, or was none.
    return 2 * facts.blocks - facts.stages


REWRITE = Rewrite("halves as separate results", _find, _check, _apply, _expected)
