"""A trigger as it came from the line, and what every kind of them has in common."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from runtime.common.closing import Closing


@dataclass(frozen=True)
class Trigger:
    """A request for the verdict of one part.

    `part` is the id that came with it, or a number that was counted. `asked_s` is when it arrived, of the monotonic
    clock. `origin` says how it came: "http", "mqtt", "opcua", "modbus" or "camera".
    """

    part: str
    asked_s: float
    origin: str


class TriggerInput(Closing, Protocol):
    """Where triggers come from; each has a thread of its own, or a server's.

    `start` is called once with what takes a trigger: that returns an empty string where the part will be answered, or
    why it is refused (too many wait), and never waits. `close` ends the thread.
    """

    name: str

    def start(self, take: Callable[[Trigger], str]) -> None:
        """Begin to pass triggers to `take`, from whatever thread."""
        ...
