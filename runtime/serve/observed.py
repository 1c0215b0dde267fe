"""What the page, the metrics and the watchdog all look at: one inspection, seen from beside it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runtime.drift.watch import DriftWatch
from runtime.recipes.book import Standing
from runtime.serve.health import Health, health, triggered_health
from runtime.serve.history import History
from runtime.serve.pictures import Pictures
from runtime.serve.status import FILE, SinkStatus, SourceStatus
from runtime.serve.threshold_control import ThresholdControl
from runtime.triggers.counts import TriggerCounts


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
    triggers: Callable[[], TriggerCounts] | None = None  # None: every frame is judged
    checks: Callable[[], Sequence[Standing]] = tuple  # none: the line goes by no checks of reference parts
    shadow: Callable[[], Mapping[str, Any]] | None = None  # how a candidate stands; None: there is none
    drift: DriftWatch | None = None  # None: nobody watches for it

    def health(self) -> Health:
        """Return whether frames are being judged: those of each camera, stream and watched folder."""
        looked_at = [s.name for s in self.sources() if s.state != FILE or self.triggers is not None]
        states = [self._health_of(name, len(looked_at) > 1) for name in looked_at]
        worst = (state for state in states if not state.ok)
        return next(worst, states[0] if states else health(self.history.age_s(), self.health_after_s))

    def _health_of(self, source: str, several: bool) -> Health:
        age_s, reason = self.history.age_s(source), self.history.reason(source)
        if self.triggers is not None:  # a line that pauses asks for nothing
            up = any(status.up for status in self.sources() if status.name == source)
            return triggered_health(age_s, up, source if several else "", reason)
        return health(age_s, self.health_after_s, source if several else "", reason)
