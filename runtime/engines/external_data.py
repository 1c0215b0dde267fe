"""What is refused of an ONNX file before any library opens it: weights in other files, operator sets from nowhere.

No hash in the sidecar speaks for weights in another file.

A changed file beside the engine would change its verdicts, and a path in the engine could name any file of the machine.
The libraries that judge read such weights without asking, so the ONNX is looked through before they open it: its
messages by their numbers in ONNX's `onnx.proto`, in protobuf's wire format. Weights themselves are skipped.

Numbers of operator sets that there cannot be are refused too: not every library bounds them.
"""

import mmap
from pathlib import Path

from runtime.common.errors import UserError

LARGEST_BYTES = 2**31 - 1  # of a protobuf message
TENSOR_EXTERNAL_DATA, TENSOR_DATA_LOCATION = 13, 14
OPERATOR_SET_VERSION = 2
LATEST_OPERATOR_SET = 1000  # ONNX is at 26 after ten years
# by message: its fields that hold messages in which a tensor can stand
HOLDERS: dict[str, dict[int, str]] = {
    "model": {7: "graph", 8: "operator set", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse tensor"},
    "function": {7: "node", 9: "operator set", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse tensor", 23: "sparse tensor"},
    "sparse tensor": {1: "tensor", 2: "tensor"},
    "tensor": {},
    "operator set": {},
}


def refuse_external_data(path: Path) -> None:
    """Raise `UserError` for an ONNX file with weights outside of it, or one that no library should be given.

    That is what is no protobuf message, and what names operator sets that there cannot be.
    """
    size = path.stat().st_size
    if not 0 < size <= LARGEST_BYTES:
        raise UserError(f"{path.name} must be an ONNX file of 1 to {LARGEST_BYTES} bytes", f"{size}", "export it again")
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            external, operator_set = _look_through(data)
    except ValueError as error:
        raise UserError(f"{path.name} must be an ONNX file, whole", str(error), "copy or export it again") from None
    if external:
        raise UserError(
            f"{path.name} must hold all of its weights, for its hash is to stand for them",
            "weights in another file (external data)",
            "save it in one file, or build it again with export.build_engine",
        )
    if operator_set > LATEST_OPERATOR_SET:
        expected = f"{path.name} must use operator sets up to {LATEST_OPERATOR_SET}"
        raise UserError(expected, str(operator_set), "copy or export it again")


def has_external_data(data: "mmap.mmap | bytes") -> bool:
    """Tell whether any tensor of an ONNX model lies outside of it. Raises `ValueError` for a broken message."""
    return _look_through(data)[0]


def _look_through(data: "mmap.mmap | bytes") -> tuple[bool, int]:
    """Return whether any tensor lies outside of the file, and the largest number of an operator set."""
    messages, operator_set = [("model", 0, len(data))], 0
    while messages:
        kind, position, end = messages.pop()
        while position < end:
            key, position = _varint(data, position, end)
            number, wire = key >> 3, key & 7
            start, position, value = _field(data, wire, position, end)
            if kind == "tensor" and (number == TENSOR_EXTERNAL_DATA or (number == TENSOR_DATA_LOCATION and value)):
                return True, operator_set
            if kind == "operator set" and number == OPERATOR_SET_VERSION:
                operator_set = max(operator_set, value)
            if number in HOLDERS[kind] and wire == 2:
                messages.append((HOLDERS[kind][number], start, position))
    return False, operator_set


def _field(data: "mmap.mmap | bytes", wire: int, position: int, end: int) -> tuple[int, int, int]:
    """Return where a field's content starts and ends, and its value if it is a number."""
    value = 0
    if wire == 0:
        value, after = _varint(data, position, end)
    elif wire == 2:
        length, position = _varint(data, position, end)
        after = position + length
    elif wire in (1, 5):
        after = position + (8 if wire == 1 else 4)
    else:
        raise ValueError(f"a field of unknown kind {wire} at byte {position}")
    if after > end:
        raise ValueError(f"a field that ends behind its message, at byte {position}")
    return position, after, value


def _varint(data: "mmap.mmap | bytes", position: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= end:
            break
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
    raise ValueError(f"a number without an end at byte {position}")
