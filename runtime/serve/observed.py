"""What the page, the metrics and the watchdog all look at: one inspection, seen from beside it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from runtime.serve.health import Health, health
from runtime.serve.history import History
from runtime.serve.pictures import Pictures
from runtime.serve.status import SinkStatus, SourceStatus
from runtime.serve.threshold_control import ThresholdControl


@dataclass(frozen=True, eq=False)
class Observed:
    """An inspection's past, pictures, threshold, sources and sinks; any thread may ask.

    The last judgement may be `health_after_s` old before the health is bad.
    """

    history: History
    pictures: Pictures
    control: ThresholdControl
    sources: Callable[[], Sequence[SourceStatus]]
    sinks: Callable[[], Sequence[SinkStatus]]
    health_after_s: float

    def health(self) -> Health:
        """Return whether frames are being judged."""
        return health(self.history.age_s(), self.health_after_s, self.history.reason())
