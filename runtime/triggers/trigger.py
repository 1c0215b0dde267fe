"""A trigger as it came from the line, and what every kind of them has in common."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from runtime.common.closing import Closing
from runtime.common.errors import UserError

LONGEST_PART = 100  # characters of a part id
PART = f"[ -~]{{0,{LONGEST_PART}}}"


@dataclass(frozen=True)
class Trigger:
    """A request for the verdict of one part.

    `part` is the id that came with it, or empty: then it is counted. `asked_s` is when it arrived, of the monotonic
    clock. `origin` says how it came: "http", "mqtt", "opcua", "modbus" or "camera". `source` names the one source
    that is asked; empty: each of them. Of a camera that its own line triggers `asked_s` is when the frame was read, and
    `named_by` what gave the part's id, if anything did.
    """

    part: str
    asked_s: float
    origin: str
    source: str = ""
    named_by: "Trigger | None" = None


class TriggerInput(Closing, Protocol):
    """Where triggers come from; each has a thread of its own, or a server's.

    `start` is called once with what takes a trigger: that returns an empty string where the part will be answered, or
    why it is refused (too many wait), and never waits. `close` ends the thread.
    """

    name: str

    def start(self, take: Callable[[Trigger], str]) -> None:
        """Begin to pass triggers to `take`, from whatever thread."""
        ...


def part_id(text: str) -> str:
    """Return what came as a part id; empty: it is counted. Raises `UserError` for what no record could show."""
    if not re.fullmatch(PART, text):
        raise UserError(f"a part id is 1 to {LONGEST_PART} printable ASCII characters", ascii(text[:LONGEST_PART]))
    return text.strip()
