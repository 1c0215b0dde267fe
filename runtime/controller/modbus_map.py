"""The registers and bits of the Modbus server. Numbers of 32 bits: the high word first, each word big-endian.

The same map is read as input registers and as holding registers, its bits as coils and as discrete inputs; only what
`WRITABLE` and `TRIGGER` name is written.
"""

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from runtime.controller.answer import Answer, Why
from runtime.controller.asking import Handshake

VERSION = 1  # of this map
BLOCK = 100  # addresses from one block to the next: 0 is the line's, 100 the first source's, 200 the second's
PART_REGISTERS = 16  # two characters each
TRIGGER = 0  # the bit that the controller writes, unless another was chosen (`runtime.controller.trigger_address`)


@dataclass(frozen=True)
class Register:
    """A value at `address` of its block: `kind` is "uint16", "uint32", "float32" or "text"."""

    address: int
    name: str
    kind: str

    @property
    def size(self) -> int:
        """How many registers it takes."""
        return {"uint16": 1, "uint32": 2, "float32": 2, "text": PART_REGISTERS}[self.kind]


LINE = (
    Register(0, "MapVersion", "uint16"),
    Register(1, "Sources", "uint16"),
    Register(2, "State", "uint16"),
    Register(3, "Heartbeat", "uint16"),
    Register(4, "Recipe", "uint16"),
    Register(10, "ControllerHeartbeat", "uint16"),
    Register(11, "RecipeRequest", "uint16"),
    Register(20, "TriggerPartId", "text"),
)
SOURCE = (
    Register(0, "Sequence", "uint32"),
    Register(2, "Verdict", "uint16"),
    Register(3, "ReasonCode", "uint16"),
    Register(4, "Score", "float32"),
    Register(6, "Threshold", "float32"),
    Register(8, "AgeMs", "uint32"),
    Register(10, "Total", "uint32"),
    Register(12, "Good", "uint32"),
    Register(14, "Anomalous", "uint32"),
    Register(16, "None", "uint32"),
    Register(18, "Late", "uint32"),
    Register(20, "PartId", "text"),
    Register(36, "Recipe", "uint16"),
)
BITS = ("Trigger", "Ready", "Busy", "Done", "Refused", "Running")
SIZE = max(row.address + row.size for row in (*LINE, *SOURCE))  # of a block that is read at once
CONTROLLER_BEAT, RECIPE_REQUEST, TRIGGER_PART = (
    next(row.address for row in LINE if row.name == name)
    for name in ("ControllerHeartbeat", "RecipeRequest", "TriggerPartId")
)
WRITABLE = frozenset({CONTROLLER_BEAT, RECIPE_REQUEST, *range(TRIGGER_PART, TRIGGER_PART + PART_REGISTERS)})


def is_there(address: int, count: int, sources: int) -> bool:
    """Return whether `count` registers from `address` on lie in one block."""
    block, place = divmod(address, BLOCK)
    return 0 <= block <= sources and place + count <= SIZE


def line_block(values: dict[str, int], part: Sequence[int]) -> list[int]:
    """Return the line's registers; `part` are those of the part id that the controller wrote."""
    return _block(LINE, {**values, "MapVersion": VERSION}, part)


def source_block(answer: Answer, now_s: float, recipe: int = 0) -> list[int]:
    """Return the registers of a source's answer at `now_s` of the monotonic clock, judged by the recipe of a number."""
    age_ms = min(int(1e3 * max(0.0, now_s - answer.judged_s)), (1 << 32) - 1)
    totals = answer.totals
    values: dict[str, float] = {
        "Sequence": answer.sequence,
        "Verdict": answer.code,
        "ReasonCode": answer.why,
        "Score": math.nan if answer.score is None else answer.score,
        "Threshold": answer.threshold,
        "AgeMs": age_ms if answer.sequence else 0,
        "Total": totals.total,
        "Good": totals.good,
        "Anomalous": totals.anomalous,
        "None": totals.none,
        "Late": totals.late,
        "Recipe": recipe,
    }
    return _block(SOURCE, values, text_registers(answer.part))


def _block(rows: Sequence[Register], values: dict[str, float] | dict[str, int], text: Sequence[int]) -> list[int]:
    block = [0] * SIZE
    for row in rows:
        block[row.address : row.address + row.size] = text if row.kind == "text" else _words(row.kind, values[row.name])
    return block


def _words(kind: str, value: float) -> list[int]:
    if kind == "uint16":
        return [int(value) & 0xFFFF]
    packed = struct.pack(">f", value) if kind == "float32" else struct.pack(">I", int(value))
    return list(struct.unpack(">HH", packed))


def text_registers(text: str) -> list[int]:
    """Return the first 32 characters of `text`, two a register, the first in the high byte; the rest is 0."""
    data = text.encode("ascii", "replace")[: 2 * PART_REGISTERS].ljust(2 * PART_REGISTERS, b"\0")
    return list(struct.unpack(f">{PART_REGISTERS}H", data))


def text_of(registers: Sequence[int]) -> str:
    """Return the text that ends at the first 0 byte; what is no ASCII becomes `\\xff` and the like."""
    data = struct.pack(f">{len(registers)}H", *registers)
    return data.partition(b"\0")[0].decode("ascii", "backslashreplace")


def bits(level: bool, started: bool, handshake: Handshake, stopped: Why, trigger: int = TRIGGER) -> int:
    """Return the bits as one number, that of address 0 the lowest; `trigger` is where the controller's stands."""
    running = not stopped
    values = (level, started and running, handshake.busy, handshake.done, handshake.refused, running)
    places = (trigger if place == TRIGGER else place for place in range(len(BITS)))
    return sum(bool(value) << place for place, value in zip(places, values, strict=True))
