"""What the page asks for once a second, as one JSON object."""

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from runtime.detector import Detector
from runtime.serve.health import health
from runtime.serve.history import RECENT, History, as_rows
from runtime.serve.pictures import Pictures
from runtime.serve.status import SinkStatus, SourceStatus
from runtime.serve.threshold_control import ThresholdControl

SHARED_FOR_S = 0.5  # twenty screens cost what one costs


class PageState:
    """Collects everything that the page shows; `run` tells a page that this is another run, and to start afresh."""

    def __init__(
        self,
        history: History,
        pictures: Pictures,
        control: ThresholdControl,
        detector: Detector,
        sources: Callable[[], Sequence[SourceStatus]],
        sinks: Callable[[], Sequence[SinkStatus]],
        health_after_s: float,
        sign_in: bool,
    ) -> None:
        self._history = history
        self._pictures = pictures
        self._control = control
        self._sources = sources
        self._sinks = sinks
        self._health_after_s = health_after_s
        sidecar = detector.sidecar
        self._run = {
            "run": secrets.token_hex(8),
            "started": time.time(),
            "engine": sidecar.name,
            "device": detector.session.device,
            "sign_in": sign_in,
            "recent": RECENT,
        }
        self.source_names: dict[str, int] = {}  # name: number in this report and in a picture's address
        self._shared: dict[str, Any] = {}
        self._shared_s = float("-inf")

    def since(self, number: int, minutes: bool) -> dict[str, Any]:
        """Return the report with the points after `number`, and with the last 24 hours by minute if asked for."""
        points = as_rows(self._history.points_after(number), self.source_names)
        report = {**self._of_all(), "points": points}
        return {**report, "minutes": self._history.minutes()} if minutes else report

    def forget(self) -> None:
        """Have the next report made anew, for somebody who has just changed something."""
        self._shared_s = float("-inf")

    def _of_all(self) -> dict[str, Any]:
        now_s = time.monotonic()
        if now_s - self._shared_s > SHARED_FOR_S:
            self._shared, self._shared_s = self._collect(), now_s
        return self._shared

    def _collect(self) -> dict[str, Any]:
        sources = self._sources()
        for source in sources:
            self.source_names.setdefault(source.name, len(self.source_names))
        state = health(self._history.age_s(), self._health_after_s, self._history.reason())
        return {
            **self._run,
            "now": time.time(),
            "health": {"ok": state.ok, "reason": state.reason},
            "counts": self._history.counts(),
            "fps": self._history.fps(),
            "latency_ms": self._history.percentiles_ms(),
            "threshold": asdict(self._control.status()),
            "sources": [{**asdict(source), "up": source.up} for source in sources],
            "source_names": list(self.source_names),
            "sinks": [asdict(sink) for sink in self._sinks()],
            "anomalies": [
                {
                    "picture": a.picture,
                    "source": a.source,
                    "name": a.name,
                    "time": a.captured_s,
                    "score": a.score,
                    "reason": a.reason,
                    "threshold": a.threshold,
                    "frames": a.frames,
                }
                for a in self._pictures.anomalies()
            ],
        }
