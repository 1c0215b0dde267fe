"""What the page says of sources and sinks, read through small callables so that neither knows of the page."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

LIVE, FILE = "live", "file"
DELIVERING = (LIVE, FILE)


@dataclass(frozen=True)
class SourceStatus:
    """A source as a person sees it: `state` is "live", "file", or what keeps it from delivering.

    `incomplete` frames came with parts missing and were refused, `missing` ones never came.
    """

    name: str
    live: bool = False
    dropped: int = 0
    state: str = LIVE
    reconnects: int = 0
    incomplete: int = 0
    missing: int = 0

    @property
    def up(self) -> bool:
        """Whether it delivers."""
        return self.state in DELIVERING

    @classmethod
    def of(cls, source: Any) -> "SourceStatus":
        """Read a source; one without a state is taken to deliver. A status is returned as it is."""
        if isinstance(source, cls):
            return source
        state = str(getattr(source, "state", LIVE))
        counts = (getattr(source, name, 0) for name in ("reconnects", "incomplete", "missing"))
        return cls(source.name, source.live, source.dropped, state, *counts)


@dataclass(frozen=True)
class SinkStatus:
    """A sink's counters: judgements `delivered`, `lost` because it was too slow, `failed` because it raised."""

    name: str
    delivered: int
    lost: int
    failed: int
    last_error: str = ""

    @classmethod
    def of(cls, counts: Any) -> "SinkStatus":
        """Read what a delivery has counted: `name`, `delivered`, `lost`, `failed` and `last_error`."""
        return cls(counts.name, counts.delivered, counts.lost, counts.failed, str(counts.last_error or ""))


Status = TypeVar("Status", SourceStatus, SinkStatus)


def with_own_names(statuses: Iterable[Status]) -> list[Status]:
    """Return `statuses` with names that differ, as metrics need them: a second "webhook" becomes "webhook (2)"."""
    seen: Counter[str] = Counter()
    named = []
    for status in statuses:
        seen[status.name] += 1
        again = seen[status.name] > 1
        named.append(replace(status, name=f"{status.name} ({seen[status.name]})") if again else status)
    return named
