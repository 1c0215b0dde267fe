"""Graphs that differ from a common one in a few layers: what is the same in both is computed once for all of them.

Of a graph in which one group of layers is another, everything in front of the group and beside it is the common
graph's. So that is run once, the tensors at the border are kept, and of each graph only the rest is run. Borders are
FP32 tensors alone: ONNX Runtime computes FP16 on a CPU in FP32, and where it rounds depends on the nodes around.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import onnx
from numpy.typing import NDArray

from export.graph.onnx_files import cpu_session
from export.images.parity_images import Images
from export.images.tile_images import PLACE_NAMES, Feed
from export.precisions.answers import Answers, feeds, joined
from runtime.common.side_by_side import side_by_side
from runtime.engines.sidecar import INPUT_NAME, MAP_NAME, SCORE_NAME

KEPT_BYTES = 1 << 29  # of tensors at borders; where all need more, the common graph is run again for some of them

Tensors = Mapping[str, NDArray[np.generic]]
Done = TypeVar("Done")


@dataclass(frozen=True, eq=False)
class Rest:
    """What of a graph is not the common one's: its `nodes`, and its `own` weights.

    `border` names the tensors of the common graph that it reads, `shared` the weights.
    """

    nodes: Sequence[onnx.NodeProto]
    own: Sequence[onnx.TensorProto]
    border: tuple[str, ...]
    shared: frozenset[str]

    def model(self, common: onnx.ModelProto) -> onnx.ModelProto:
        """Return it as a graph with the `border` as its inputs."""
        known = {value.name: value for value in (*common.graph.input, *common.graph.value_info)}
        weights = [*self.own, *(tensor for tensor in common.graph.initializer if tensor.name in self.shared)]
        inputs = [known[name] for name in self.border]
        graph = onnx.helper.make_graph(self.nodes, "rest", inputs, common.graph.output, weights)
        return onnx.helper.make_model(graph, opset_imports=common.opset_import, ir_version=common.ir_version)


def rest_of(common: onnx.ModelProto, other: onnx.ModelProto) -> Rest:
    """Return what has to be computed of `other` once `common` is; both name the same tensors alike.

    `common` knows the types and shapes of its tensors.
    """
    theirs = {tensor.name: tensor for tensor in common.graph.initializer}
    weights = {tensor.name: tensor for tensor in other.graph.initializer}
    equal = {name for name, tensor in weights.items() if name in theirs and theirs[name] == tensor}
    makers = {name: index for index, node in enumerate(other.graph.node) for name in node.output}
    same = _same_nodes(common, other, equal, frozenset(weights))
    same -= {makers[value.name] for value in other.graph.output}
    carried = {v.name for v in common.graph.value_info if v.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}
    while True:
        nodes = [node for index, node in enumerate(other.graph.node) if index not in same]
        read = {name for node in nodes for name in node.input}
        border = {name for name in read if makers.get(name) in same}
        if border <= carried:
            break
        same -= {makers[name] for name in border - carried}
    border |= read & {value.name for value in other.graph.input}
    own = [tensor for name, tensor in weights.items() if name in read - equal]
    return Rest(nodes, own, tuple(sorted(border)), frozenset(read & equal))


def _same_nodes(common: onnx.ModelProto, other: onnx.ModelProto, equal: set[str], weights: frozenset[str]) -> set[int]:
    """Return the places of the nodes of `other` that compute in `common` the same from the same frames."""
    theirs = {node.output[0]: node for node in common.graph.node}
    known = {value.name for value in other.graph.input}
    same = set()
    for index, node in enumerate(other.graph.node):
        computed = [name for name in node.input if name and name not in weights]
        computes_the_same = (
            computed
            and known.issuperset(computed)
            and equal.issuperset(name for name in node.input if name in weights)
            and _does_the_same(theirs.get(node.output[0]), node)
        )
        if computes_the_same:
            same.add(index)
            known.update(node.output)
    return same


def _does_the_same(theirs: onnx.NodeProto | None, node: onnx.NodeProto) -> bool:
    return theirs is not None and all(
        getattr(theirs, name) == getattr(node, name) for name in ("op_type", "domain", "input", "output", "attribute")
    )


def judge_rests(
    common: onnx.ModelProto, rests: Sequence[Rest], images: Images, then: Callable[[Answers], Done]
) -> Iterator[Done]:
    """Yield, for each of the graphs, `then` of what it says of `images`: to the bit what the whole graph says.

    Raises `UserError` for an answer that is not finite.
    """
    for few in _fitting(common, rests, len(images)):
        borders = _borders(common, few, images)

        def judged(rest: Rest, borders: Sequence[Tensors] = borders) -> Done:
            session = cpu_session(rest.model(common), threads=1)
            feeds = ({name: tensors[name] for name in rest.border} for tensors in borders)
            return then(joined(session.run([MAP_NAME, SCORE_NAME], feed) for feed in feeds))

        yield from side_by_side(judged, few)


def _fitting(common: onnx.ModelProto, rests: Sequence[Rest], count: int) -> Iterator[list[Rest]]:
    """Yield the rests, as many at a time as read no more than `KEPT_BYTES` of `count` images."""
    few: list[Rest] = []
    sizes = {value.name: count * _bytes_of(value) for value in common.graph.value_info}
    for rest in rests:
        read = {name for each in (*few, rest) for name in each.border}
        if few and sum(sizes.get(name, 0) for name in read) > KEPT_BYTES:
            yield few
            few = []
        few.append(rest)
    yield few


def _bytes_of(value: onnx.ValueInfoProto) -> int:
    """Return the bytes of an FP32 tensor of one image."""
    return 4 * math.prod(int(side.dim_value or 1) for side in value.type.tensor_type.shape.dim)


def _borders(common: onnx.ModelProto, rests: Sequence[Rest], images: Images) -> list[Tensors]:
    """Return what the rests read, batch by batch."""
    names = sorted({name for rest in rests for name in rest.border} - {INPUT_NAME, *PLACE_NAMES})
    waiting = feeds(images)
    if not names:
        return list(waiting)
    session = cpu_session(_with_outputs(common, names), threads=1)

    def tensors_of(inputs: Feed) -> Tensors:
        return {**inputs, **dict(zip(names, session.run(names, inputs), strict=True))}

    return list(side_by_side(tensors_of, waiting))


def _with_outputs(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    known = {value.name: value for value in model.graph.value_info}
    more = onnx.ModelProto()
    more.CopyFrom(model)
    more.graph.output.extend(known[name] for name in names)
    return more
