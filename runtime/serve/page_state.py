"""What the page asks for once a second, as one JSON object; its process shares it among all who look."""

import secrets
import time
from dataclasses import asdict
from typing import Any

from runtime.recipes.book import Recipes
from runtime.serve.history import RECENT, as_rows
from runtime.serve.observed import Observed


class PageState:
    """Collects everything that the page shows; `run` tells a page that this is another run, and to start afresh."""

    def __init__(self, observed: Observed, recipes: Recipes, sign_in: bool) -> None:
        self._observed = observed
        self._history = observed.history
        self._recipes = recipes
        self._run = {
            "run": secrets.token_hex(8),
            "started": time.time(),
            "sign_in": sign_in,
            "recent": RECENT,
        }
        self.source_names: dict[str, int] = {}  # name: number in this report and in a picture's address

    def since(self, number: int, minutes: bool) -> dict[str, Any]:
        """Return the report with the points after `number`, and with the last 24 hours by minute if asked for."""
        points = as_rows(self._history.points_after(number), self.source_names, self._recipes.names)
        report = {**self._collect(), "points": points}
        return {**report, "minutes": self._history.minutes()} if minutes else report

    def _collect(self) -> dict[str, Any]:
        sources = self._observed.sources()
        for source in sources:
            self.source_names.setdefault(source.name, len(self.source_names))
        state, triggers = self._observed.health(), self._observed.triggers
        judges, names = self._recipes.in_force, self._recipes.names
        engines = dict.fromkeys(one.detector.sidecar.name for one in judges.inspects)
        return {
            **self._run,
            "engine": ", ".join(engines),
            "device": judges.first.detector.session.device,
            "recipe": {"name": judges.name, "names": list(names)} if names else None,
            "check": self._check(),
            "shadow": None if self._observed.shadow is None else dict(self._observed.shadow()),
            "drift": self._drift(),
            "now": time.time(),
            "health": {"ok": state.ok, "reason": state.reason + state.detail},
            "counts": self._history.counts(),
            "fps": self._history.fps(),
            "triggers": None if triggers is None else asdict(triggers()),
            "latency_ms": self._history.percentiles_ms(),
            "threshold": asdict(self._observed.control.status()),
            "sources": [{**asdict(source), "up": source.up} for source in sources],
            "source_names": list(self.source_names),
            "parts": self._history.parts(),
            "sinks": [asdict(sink) for sink in self._observed.sinks()],
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
                    "closer": a.closer.fields(),
                }
                for a in self._observed.pictures.anomalies()
            ],
        }

    def _check(self) -> dict[str, Any] | None:
        """Return how the recipe in force stands with its reference parts; None where the line goes by no check."""
        name = self._recipes.name_in_force()
        return next((asdict(one) for one in self._observed.checks() if one.recipe == name), None)

    def _drift(self) -> dict[str, Any] | None:
        """Return the drift alarms that stand and how far each source is; None where nobody watches for drift."""
        watch = self._observed.drift
        if watch is None:
            return None
        return {"alarms": [alarm.said() for alarm in watch.alarms()], "states": watch.states()}
