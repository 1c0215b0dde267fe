"""How a sink's queue behaves, and what became of the judgements that were put into it."""

import errno
from dataclasses import dataclass
from typing import Literal

from runtime.common.errors import UserError


@dataclass(frozen=True)
class Queueing:
    """How the queue of a sink behaves.

    It holds at most `capacity` judgements and `max_bytes` of their arrays (one always fits). When it is full,
    `keep` decides: "oldest" refuses the newcomer, which suits records (what was begun stays without gaps);
    "newest" gives up the one that waited longest, which suits messages (a line's controller acts on the present).
    A sink without need of `pictures` gets black ones that take no memory. With `anomalies_only`, good
    frames are not offered to it at all, and so never push out an anomalous one. With `answers_only`, which suits
    those that tell the line, neither are verdicts that came after their part was answered.

    With a `batch` above 1 the sink gets up to so many at once (`runtime.sinks.judgement.BatchSink`): the first waits
    for others up to `gather_s` seconds, or until they take half of `max_bytes`.
    """

    capacity: int = 64
    max_bytes: int = 128 << 20
    keep: Literal["oldest", "newest"] = "newest"
    pictures: bool = True
    anomalies_only: bool = False
    batch: int = 1
    gather_s: float = 0.0
    answers_only: bool = False


@dataclass(frozen=True)
class Counts:
    """What became of the judgements offered to the sink `name`; `queued` wait still (or are being written)."""

    name: str
    delivered: int = 0
    lost: int = 0
    failed: int = 0
    queued: int = 0
    last_error: str = ""

    @property
    def undelivered(self) -> int:
        """Judgements that the sink should have had and has not."""
        return self.lost + self.failed

    def text(self) -> str:
        """Return one line for a person."""
        error = f" ({self.last_error})" if self.last_error else ""
        return f"{self.name}: {self.delivered} delivered, {self.lost} lost, {self.failed} failed{error}"


class NotKept(OSError):
    """`count` judgements that had been delivered turn out not to be there; the one at hand is."""

    def __init__(self, count: int, reason: str, path: str) -> None:
        super().__init__(errno.EIO, reason, path)
        self.count = count


def error_line(error: BaseException) -> str:
    """Return one line for what a sink raised; a defect of the program names its type."""
    if isinstance(error, UserError):
        text = str(error)
    elif isinstance(error, OSError):
        text = f"{error.strerror or error}" + (f" ({error.filename})" if error.filename else "")
    else:
        text = f"{type(error).__name__}: {error}"
    return " ".join(text.split())
