"""What the page says of sources and sinks, read through small callables so that neither knows of the page."""

from dataclasses import dataclass
from typing import Any

LIVE = "live"


@dataclass(frozen=True)
class SourceStatus:
    """A source as a person sees it: `state` is "live", or a sentence such as "reconnecting since 12:03:01"."""

    name: str
    live: bool = False
    dropped: int = 0
    state: str = LIVE
    reconnects: int = 0

    @property
    def up(self) -> bool:
        """Whether it delivers."""
        return self.state == LIVE

    @classmethod
    def of(cls, source: Any) -> "SourceStatus":
        """Read a `runtime.frame.Source`; one without a state is taken to deliver."""
        state = str(getattr(source, "state", LIVE))
        return cls(source.name, source.live, source.dropped, state, getattr(source, "reconnects", 0))


@dataclass(frozen=True)
class SinkStatus:
    """A sink's counters: judgements `delivered`, `lost` because it was too slow, `failed` because it raised."""

    name: str
    delivered: int
    lost: int
    failed: int
    last_error: str = ""

    @classmethod
    def of(cls, delivery: Any) -> "SinkStatus":
        """Read a `runtime.delivery.Delivery`."""
        error = getattr(delivery, "last_error", None)
        return cls(delivery.name, delivery.delivered, delivery.lost, delivery.failed, str(error or ""))
