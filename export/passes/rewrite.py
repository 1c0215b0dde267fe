"""What every rewrite needs of a graph: who made a tensor, who reads it, what a matrix product multiplies by.

A rewrite is a `Rewrite`: `find` names a pattern's occurrences, `check` says why one is refused, `apply`
changes the graph. `run` counts. `find` looks at one node at a time, so an occurrence is anchored there.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]
Match = dict[str, Any]


@dataclass(frozen=True)
class ModelFacts:
    """What the graph is known to hold, from its metadata: how often each rewrite should match."""

    taps: int
    blocks: int  # of all decoders
    stages: int  # of all decoders: one has two where half of its channels are factored out on the way
    conditional: bool
    soft_permutation: bool
    maps: int  # sums of the taps' maps: the anomaly map, and one on the finest grid where the image score needs it


@dataclass(frozen=True)
class Rewrite:
    """One exact rewrite. `expected` gives the matches that a model must show, None where any count is right.

    `backwards`: what it leaves behind is taken up by a match nearer to the input, so the last one goes first.
    """

    name: str
    find: Callable[[gs.Node], Match | None]
    check: Callable[[gs.Graph, Match], str | None]
    apply: Callable[[gs.Graph, Match], None]
    expected: Callable[[ModelFacts], int | None]
    backwards: bool = False


@dataclass
class RewriteCount:
    """How often a rewrite was applied, and the reasons where its pattern stood but was refused."""

    name: str
    matches: int = 0
    refusals: list[str] = field(default_factory=list)
    nodes_before: int = 0
    nodes_after: int = 0


def run(graph: gs.Graph, rewrite: Rewrite) -> RewriteCount:
    """Apply `rewrite` wherever it stands and may be, and clean the graph up."""
    count = RewriteCount(rewrite.name, nodes_before=len(graph.nodes))
    nodes = list(graph.nodes)
    for node in reversed(nodes) if rewrite.backwards else nodes:
        match = rewrite.find(node)
        if match is None:
            continue
        reason = rewrite.check(graph, match)
        if reason is None:
            rewrite.apply(graph, match)
            count.matches += 1
        else:
            count.refusals.append(f"{node.name}: {reason}")
    graph.cleanup(remove_unused_graph_inputs=False).toposort()
    count.nodes_after = len(graph.nodes)
    return count


def producer(tensor: gs.Tensor, *ops: str) -> gs.Node | None:
    """Return the node that makes `tensor` if its operator is one of `ops`."""
    if isinstance(tensor, gs.Constant) or len(tensor.inputs) != 1:
        return None
    node = tensor.inputs[0]
    return node if node.op in ops else None


def has_other_readers(graph: gs.Graph, tensor: gs.Tensor, reader: gs.Node) -> bool:
    """Say whether anything but `reader` needs `tensor`, a graph output included."""
    return any(node is not reader for node in tensor.outputs) or any(tensor is output for output in graph.outputs)


def is_over_channels(reduction: gs.Node) -> bool:
    """Say whether a reduction takes (N, D) to (N,); its axes are an attribute or, in newer opsets, an input."""
    if len(reduction.inputs) > 1:
        axes = reduction.inputs[1].values.tolist() if isinstance(reduction.inputs[1], gs.Constant) else None
    else:
        axes = reduction.attrs.get("axes")
    return axes in ([1], [-1]) and not reduction.attrs.get("keepdims", 1)


def constant_and_other(node: gs.Node) -> tuple[Array, gs.Tensor] | None:
    """Split a binary node's inputs into (constant values, the other tensor); None if that is not what they are."""
    if len(node.inputs) != 2:
        return None
    left, right = node.inputs
    if isinstance(right, gs.Constant) and not isinstance(left, gs.Constant):
        return right.values, left
    if isinstance(left, gs.Constant) and not isinstance(right, gs.Constant):
        return left.values, right
    return None


def table_behind(tensor: gs.Tensor) -> gs.Constant | None:
    """Return the constant whose entries along axis 0 a Gather takes to make `tensor`; None if it is made otherwise."""
    gather = producer(tensor, "Gather")
    if gather is None or gather.attrs.get("axis", 0) != 0 or not isinstance(gather.inputs[0], gs.Constant):
        return None
    return gather.inputs[0]


def tables_behind(tensor: gs.Tensor) -> list[gs.Constant]:
    """Return the tables of what is the sum of one entry of each of two; none if it is made otherwise."""
    add = producer(tensor, "Add")
    tables = [table_behind(part) for part in add.inputs] if add is not None else []
    found = [table for table in tables if table is not None]
    return found if len(found) == len(tables) else []


def scalar_and_other(node: gs.Node) -> tuple[float, gs.Tensor] | None:
    """As `constant_and_other`, for a constant of one element."""
    split = constant_and_other(node)
    return (float(split[0].reshape(())), split[1]) if split is not None and split[0].size == 1 else None


def gemm_weight(node: gs.Node) -> Array | None:
    """Return a plain Gemm's constant weight as (out, in); None if it is scaled, transposed in A, or not constant."""
    attrs = node.attrs
    if node.op != "Gemm" or attrs.get("transA", 0) or attrs.get("alpha", 1.0) != 1.0 or attrs.get("beta", 1.0) != 1.0:
        return None
    if not isinstance(node.inputs[1], gs.Constant):
        return None
    values: Array = node.inputs[1].values
    return values if attrs.get("transB", 0) else values.T


def gemm_bias(node: gs.Node) -> Array | None:
    """Return a Gemm's constant bias (out,), zeros where it has none, None where it is not constant."""
    weight = gemm_weight(node)
    if weight is None:
        return None
    if len(node.inputs) < 3:
        return np.zeros(weight.shape[0], weight.dtype)
    bias = node.inputs[2]
    if not isinstance(bias, gs.Constant):
        return None
    return np.broadcast_to(bias.values.reshape(-1), (weight.shape[0],))


def set_gemm(node: gs.Node, x: gs.Tensor, weight: Array, bias: Array | None) -> None:
    """Make `node` compute x·weightᵀ + bias for a weight (out, in); values are rounded to float32 here, once."""
    node.inputs = [x, constant(f"{node.name}/weight", weight)]
    if bias is not None:
        node.inputs.append(constant(f"{node.name}/bias", bias))
    node.attrs = {"transB": 1}


def constant(name: str, values: Any) -> gs.Constant:
    """Make a float32 constant (int64 for integer values); the exporter may share one between nodes, a rewrite never."""
    array = np.asarray(values)
    kind = np.float32 if array.dtype.kind == "f" else np.int64
    return gs.Constant(name, np.ascontiguousarray(array.astype(kind)))


def insert(graph: gs.Graph, op: str, name: str, inputs: list[gs.Tensor], attrs: dict[str, Any] | None = None) -> Any:
    """Add a node with one new float32 output and return that output."""
    output = gs.Variable(f"{name}/out", dtype=np.float32)
    graph.nodes.append(gs.Node(op, name, attrs=attrs or {}, inputs=inputs, outputs=[output]))
    return output
