"""What stands in front of the tiles: a resize of the camera's frames, and floats where a library cuts no bytes."""

import onnx
import onnx_graphsurgeon as gs
from onnx import TensorProto, helper

from export.graph.onnx_files import get_info
from export.graph.tiled_frame import INSIDE, PREFIX, batched, body_of, find_loop, renamed
from export.passes.resize_frames import find_front, put_in_front
from runtime.engines.sidecar import INPUT_NAME

LEVELS = f"{PREFIX}levels"  # frames that are resized, as bytes, (B, H, W, 3)


def resize_in_front(model: onnx.ModelProto, frame_size: tuple[int, int]) -> onnx.ModelProto:
    """Return a graph of tiled frames that takes frames of `frame_size` and resizes them before it cuts them.

    What is resized are whole grey levels, and becomes bytes again: they are cut in a quarter of the memory.
    """
    grid = get_info(model, "the model").sidecar.tiles
    assert grid is not None
    front = gs.import_onnx(_plain_front(model, grid.frame))
    found = find_front(front)
    assert not isinstance(found, str)
    put_in_front(front, found, frame_size, grid.frame)
    made = gs.export_onnx(front).graph
    resized = onnx.ModelProto()
    resized.CopyFrom(model)
    nodes = [renamed(node, {INPUT_NAME: LEVELS}) for node in model.graph.node]
    del resized.graph.node[:], resized.graph.input[:]
    resized.graph.node.extend([*made.node, *nodes])
    resized.graph.input.append(batched(INPUT_NAME, TensorProto.UINT8, *frame_size, 3))
    resized.graph.initializer.extend(made.initializer)
    return resized


def _plain_front(model: onnx.ModelProto, size: tuple[int, int]) -> onnx.ModelProto:
    """Return a graph from frames to the same `LEVELS`, by way of planes of floats: a resize takes their place."""
    nodes = [
        helper.make_node("Cast", [INPUT_NAME], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["floats"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Transpose", ["planes"], [f"{LEVELS}/floats"], name=f"{PREFIX}interleaved", perm=[0, 2, 3, 1]),
        helper.make_node("Cast", [f"{LEVELS}/floats"], [LEVELS], name=f"{PREFIX}levels", to=TensorProto.UINT8),
    ]
    ends = [batched(name, TensorProto.UINT8, *size, 3) for name in (INPUT_NAME, LEVELS)]
    graph = helper.make_graph(nodes, "front", ends[:1], ends[1:])
    return helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)


def with_floats_cut(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a graph of tiled frames that cuts floats, not bytes, which TensorRT takes at a graph's input alone.

    A graph without tiles is returned as it is.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    loop = find_loop(copy)
    if loop is None:
        return model
    bytes_read = [node for node in body_of(loop).node if node.op_type == "Cast" and node.input[0] == INSIDE[INPUT_NAME]]
    levels = [node for node in copy.graph.node if node.name == f"{PREFIX}levels"]
    for node in (*bytes_read, *levels):
        node.op_type = "Identity"
        del node.attribute[:]
    if not levels:
        for node in copy.graph.node:
            node.input[:] = [LEVELS if name == INPUT_NAME else name for name in node.input]
        cast = helper.make_node("Cast", [INPUT_NAME], [LEVELS], name=f"{PREFIX}floats", to=TensorProto.FLOAT)
        copy.graph.node.insert(0, cast)
    return copy
