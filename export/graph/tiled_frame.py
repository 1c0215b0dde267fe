"""A graph that judges tiles in a graph that judges frames: cut, a loop over groups of tiles, and one map again.

    frames [B, H, W, 3] -> tiles [B·groups, k, h, w, 3] -> Loop(network) -> maps [B·groups, k, h, w] -> map [B, H, W]

The network stands there once, whatever the number of tiles, and memory is that of `k` tiles. Its weights stay constants
of the outer graph, where every library finds and checks them. What is done to a network (rewrites, precisions) is done
to it alone: `tile_network` takes it out of the loop again.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from export.graph.onnx_files import get_info, set_info
from export.images.tile_images import PLACE_NAMES, places_of
from runtime.common.errors import UserError
from runtime.engines.sidecar import INPUT_NAME, MAP_NAME, SCORE_NAME
from runtime.images.tiles import TileGrid

PREFIX = "tiles/"  # of the names of all nodes here
LOOP = f"{PREFIX}loop"
INSIDE = {name: f"{PREFIX}{name}" for name in (INPUT_NAME, *PLACE_NAMES, MAP_NAME, SCORE_NAME)}
_OUTSIDE = {inside: name for name, inside in INSIDE.items()}
BATCH = "batch"


def put_into_frame(network: onnx.ModelProto, at_once: int = 1) -> onnx.ModelProto:
    """Return the graph of whole frames for a `network` of tiles, which judges about `at_once` of them together.

    A network whose sidecar knows no tiles is returned as it is.
    """
    grid = get_info(network, "the network").sidecar.tiles
    if grid is None:
        return network
    build = _Builder(next(o.version for o in network.opset_import if o.domain in ("", "ai.onnx")))
    groups = -(-grid.count // at_once)
    size = -(-grid.count // groups)  # no more than asked for, and as even as can be
    tiles = _cut(build, grid, groups * size, size)
    maps, scores = _loop(build, network, tiles, grid, groups, size)
    _blend(build, maps, grid, groups * size)
    _largest(build, scores, groups * size)
    graph = helper.make_graph(
        build.nodes,
        network.graph.name,
        [batched(INPUT_NAME, TensorProto.UINT8, *grid.frame, 3)],
        [batched(MAP_NAME, TensorProto.FLOAT, *grid.frame), batched(SCORE_NAME, TensorProto.FLOAT)],
        [*network.graph.initializer, *build.constants],
    )
    model = helper.make_model(graph, opset_imports=network.opset_import, ir_version=network.ir_version)
    model.functions.extend(network.functions)
    set_info(model, get_info(network, "the network"))
    return model


def tile_network(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return what `put_into_frame` was given; a graph without tiles as it is.

    Raises `UserError` where the loop over the tiles is missing, though the sidecar speaks of tiles.
    """
    info = get_info(model, "the model")
    grid = info.sidecar.tiles
    if grid is None:
        return model
    loop = find_loop(model)
    if loop is None:
        raise UserError("a tiled model must hold its loop over the tiles", "none", "export it again")
    nodes = [renamed(node, _OUTSIDE) for node in body_of(loop).node if not node.name.startswith(PREFIX)]
    read = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        model.graph.name,
        [batched(INPUT_NAME, TensorProto.UINT8, *grid.tile, 3)]
        + [batched(name, TensorProto.INT64) for name in PLACE_NAMES],
        [batched(MAP_NAME, TensorProto.FLOAT, *grid.tile), batched(SCORE_NAME, TensorProto.FLOAT)],
        [tensor for tensor in model.graph.initializer if tensor.name in read],
    )
    network = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    network.functions.extend(model.functions)
    network = onnx.shape_inference.infer_shapes(network, strict_mode=True, data_prop=True)
    set_info(network, info)
    return network


def tiles_at_once(model: onnx.ModelProto) -> int:
    """Return how many tiles go through the network of a graph of tiled frames together; 1 where there are none."""
    loop = find_loop(model)
    if loop is None:
        return 1
    return int(body_of(loop).output[-1].type.tensor_type.shape.dim[0].dim_value)


def find_loop(model: onnx.ModelProto) -> onnx.NodeProto | None:
    """Return the loop over tiles, None where there is none."""
    return next((node for node in model.graph.node if node.name == LOOP), None)


def body_of(loop: onnx.NodeProto) -> onnx.GraphProto:
    """Return the graph that a loop runs."""
    body: onnx.GraphProto = next(attribute.g for attribute in loop.attribute if attribute.name == "body")
    return body


def batched(name: str, kind: int, *shape: int) -> onnx.ValueInfoProto:
    """Return an input or output of any batch, (B, *shape)."""
    return helper.make_tensor_value_info(name, kind, [BATCH, *shape])


def renamed(node: onnx.NodeProto, names: dict[str, str]) -> onnx.NodeProto:
    """Return a copy of a node that reads and makes tensors of other `names`."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.input[:] = [names.get(name, name) for name in node.input]
    copy.output[:] = [names.get(name, name) for name in node.output]
    return copy


class _Builder:
    """Collects nodes, each named after its operator and number, and constants."""

    def __init__(self, opset: int) -> None:
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def __call__(self, op: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        name = f"{PREFIX}{op}_{len(self.nodes)}"
        output = output or f"{name}/out"
        self.nodes.append(helper.make_node(op, inputs, [output], name=name, **attributes))
        return output

    def constant(self, values: NDArray[np.generic]) -> str:
        name = f"{PREFIX}constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def integers(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def slice(self, x: str, *axes: tuple[int, int, int], output: str = "") -> str:
        """Cut `x` along some axes, each given as (axis, first, behind the last)."""
        numbers, firsts, lasts = zip(*axes, strict=True)
        inputs = (self.integers(*firsts), self.integers(*lasts), self.integers(*numbers))
        return self("Slice", x, *inputs, output=output)

    def reshape(self, x: str, *shape: int, output: str = "") -> str:
        return self("Reshape", x, self.integers(*shape), output=output)

    def concat(self, parts: Sequence[str], axis: int) -> str:
        return parts[0] if len(parts) == 1 else self("Concat", *parts, axis=axis)


def _cut(build: _Builder, grid: TileGrid, count: int, size: int) -> str:
    """frames [B, H, W, 3] to tiles [B·count / size, size, h, w, 3]; the last tile fills the last group up."""
    height, width = grid.tile
    corners = list(grid.corners())
    parts = [
        build.slice(INPUT_NAME, (1, top, top + height), (2, left, left + width))
        for top, left in _filled(corners, count)
    ]
    return build.reshape(build.concat(parts, 1), -1, size, height, width, 3)


def _filled(items: Sequence[tuple[int, int]], count: int) -> list[tuple[int, int]]:
    return [*items, *[items[-1]] * (count - len(items))]


def _loop(
    build: _Builder, network: onnx.ModelProto, tiles: str, grid: TileGrid, groups: int, size: int
) -> tuple[str, str]:
    """Judge group after group: maps [B·groups, size, h, w] and scores [B·groups, size]."""
    places = np.array(_filled(places_of(grid), groups * size), np.int64).reshape(groups, size, 2)
    turn, go = f"{PREFIX}turn", f"{PREFIX}go"
    inside = _Builder(build.opset)
    inside("Gather", tiles, turn, output=INSIDE[INPUT_NAME], axis=0)
    group = inside("Mod", turn, build.constant(np.array(groups, np.int64)))  # of its frame
    for axis, name in enumerate(PLACE_NAMES):
        inside("Gather", build.constant(places[..., axis]), group, output=INSIDE[name], axis=0)
    inside("Constant", output=f"{go}_on", value=numpy_helper.from_array(np.array(True)))
    nodes = [*inside.nodes, *(renamed(node, INSIDE) for node in network.graph.node)]
    body = helper.make_graph(
        nodes,
        f"{PREFIX}body",
        [
            helper.make_tensor_value_info(turn, TensorProto.INT64, []),
            helper.make_tensor_value_info(go, TensorProto.BOOL, []),
        ],
        [
            helper.make_tensor_value_info(f"{go}_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info(INSIDE[MAP_NAME], TensorProto.FLOAT, [size, *grid.tile]),
            helper.make_tensor_value_info(INSIDE[SCORE_NAME], TensorProto.FLOAT, [size]),
        ],
    )
    shape = build("Shape", tiles)
    trips = build("Gather", shape, build.constant(np.array(0, np.int64)), axis=0)
    maps, scores = f"{LOOP}/maps", f"{LOOP}/scores"
    build.nodes.append(helper.make_node("Loop", [trips, ""], [maps, scores], name=LOOP, body=body))
    return maps, scores


def _blend(build: _Builder, maps: str, grid: TileGrid, count: int) -> None:
    """Maps [B·groups, size, h, w] to the frame's [B, H, W], along the columns of tiles first, then along the rows."""
    rows, columns, (height, width) = len(grid.tops), len(grid.lefts), grid.tile
    x = build.reshape(maps, -1, count, height, width)
    if count > grid.count:
        x = build.slice(x, (1, 0, grid.count))
    x = build.reshape(x, -1, rows, columns, height, width)
    x = _joined(build, x, (2, 4), grid.lefts, grid.column_weights())
    x = build.reshape(x, -1, rows, height, grid.frame[1])
    x = _joined(build, x, (1, 2), grid.tops, grid.row_weights()[..., None])
    build.reshape(x, -1, *grid.frame, output=MAP_NAME)


def _joined(build: _Builder, x: str, axes: tuple[int, int], starts: Sequence[int], weights: NDArray[np.float32]) -> str:
    """Put tiles together along one axis: what one tile alone says as it is, and where two fade, their weighted sum.

    `axes` are that of the tiles' numbers and that of their pixels, `weights` are (tiles, pixels, ...).
    """
    by_tile, by_pixel = axes
    heard = weights.reshape(len(weights), weights.shape[1]) > 0
    begins = [start + int(each.argmax()) for start, each in zip(starts, heard, strict=True)]
    ends = [start + len(each) - int(each[::-1].argmax()) for start, each in zip(starts, heard, strict=True)]

    def part(tile: int, first: int, last: int) -> str:
        return build.slice(x, (by_tile, tile, tile + 1), (by_pixel, first - starts[tile], last - starts[tile]))

    def faded(tile: int, first: int, last: int) -> str:
        weight = weights[tile, first - starts[tile] : last - starts[tile]]
        return build("Mul", part(tile, first, last), build.constant(weight))

    parts, done = [], 0
    for tile, end in enumerate(ends):
        begin_of_next = begins[tile + 1] if tile + 1 < len(begins) else end
        parts.append(part(tile, done, begin_of_next))
        if begin_of_next < end:
            fade = (begin_of_next, end)
            parts.append(build("Add", faded(tile, *fade), faded(tile + 1, *fade)))
        done = end
    return build.concat(parts, by_pixel)


def _largest(build: _Builder, scores: str, count: int) -> None:
    """Scores [B·groups, size] to the largest of each frame's, [B]; a maximum may lose what is not finite, a sum not."""
    of_frame = build.reshape(scores, -1, count)
    if build.opset < 18:
        largest = build("ReduceMax", of_frame, axes=[1], keepdims=0)
    else:
        largest = build("ReduceMax", of_frame, build.integers(1), keepdims=0)
    total = build("ReduceSum", of_frame, build.integers(1), keepdims=0)
    square = build("Mul", total, total)
    fault = build("Sub", build("Abs", square), square)  # 0, or NaN: as `export.passes.carry_non_finite`
    build("Add", largest, fault, output=SCORE_NAME)
