"""Which node of an ONNX makes which tensor, read without the package `onnx`.

ONNX Runtime calls a layer that it made anew after its result ("relu_3_nchwc"), and the passes that type a graph call
what stands between two nodes after the tensor there ("relu_3/int8/Q"). The file says whose result that is.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from runtime.report.layers import named_nodes

# numbers of fields in onnx.proto: ModelProto.graph, GraphProto.node, NodeProto.output, NodeProto.name
GRAPH, NODE, OUTPUT, NAME = 7, 1, 2, 3
VARINT, LENGTH_DELIMITED = 0, 2  # wire types of protobuf
FIXED_BYTES = {1: 8, 5: 4}  # of those that have always the same
CAST_PREFIX = "InsertedPrecisionFreeCast_"  # ONNX Runtime's, where it moves a layer from FP16 to FP32


def read_producers(path: Path) -> dict[str, str]:
    """Return {tensor: the node that makes it} of the ONNX at `path`, which a library has opened before."""
    producers: dict[str, str] = {}
    for graph in _fields(memoryview(path.read_bytes()), GRAPH):
        for node in _fields(graph, NODE):
            name = "".join(bytes(part).decode() for part in _fields(node, NAME))
            producers |= {bytes(output).decode(): name for output in _fields(node, OUTPUT)}
    return producers


def node_behind(layer_name: str, producers: Mapping[str, str]) -> str:
    """Return the node of the model whose result a layer is called after, "" where there is none.

    A node that is called after a tensor itself is followed on to the one behind it.
    """
    seen: set[str] = set()
    name = layer_name.removeprefix(CAST_PREFIX)
    while name not in seen:
        seen.add(name)
        # the longest tensor that the name begins with; a number ends a tensor's name: relu_31 was not made of relu
        ends = [len(name), *sorted((found.start() for found in re.finditer(r"[/_](?!\d)", name)), reverse=True)]
        name = next((producers[name[:end]] for end in ends if name[:end] in producers), "")
        if not name or named_nodes(name):
            return name
    return ""


def _fields(message: memoryview, wanted: int) -> Iterator[memoryview]:
    """Yield the contents of the fields of number `wanted` in a protobuf message."""
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        number, wire_type = key >> 3, key & 7
        size = FIXED_BYTES.get(wire_type, 0)
        if wire_type in (VARINT, LENGTH_DELIMITED):
            value, position = _varint(message, position)
            size = value if wire_type == LENGTH_DELIMITED else 0
        if number == wanted and wire_type == LENGTH_DELIMITED:
            yield message[position : position + size]
        position += size


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    """Return the number at `position`, seven bits a byte with the lowest first, and the position behind it."""
    value = shift = 0
    while True:
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
