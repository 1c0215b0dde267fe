"""Registers as a controller reads them, by the documented map."""

import struct
from collections.abc import Sequence
from typing import Any

from runtime.controller.modbus_map import Register

FORMS = {"uint16": ">H", "uint32": ">I", "float32": ">f"}


def decoded(registers: Sequence[int], rows: Sequence[Register]) -> dict[str, Any]:
    """Return the values of a block by their names."""
    data = struct.pack(f">{len(registers)}H", *registers)
    found: dict[str, Any] = {}
    for row in rows:
        if row.kind == "text":
            text = data[2 * row.address : 2 * (row.address + row.size)]
            found[row.name] = text.rstrip(b"\0").decode("ascii")
        else:
            [found[row.name]] = struct.unpack_from(FORMS[row.kind], data, 2 * row.address)
    return found
