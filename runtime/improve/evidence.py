"""What the log holds of one engine: its judgements under the conditions in force, and what people said of them.

In force is what the newest judgement by the engine was made with: recipe, threshold, mask and region.
"""

import json
from array import array
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.common.errors import UserError
from runtime.improve.marked import Marked
from runtime.records.marks import FALSE_ALARM, marks, standing
from runtime.records.read import Query, judgements, settings_of_run

SEEN = ("roi", "mask", "mask_fill", "rotate", "flip")  # of a run's settings: what of a frame is judged
TAKEN_BACK = "taken back"
OTHER_ENGINE = "of another engine"
SEVERAL = "of several detectors together"
OTHER_RECIPE = "of another recipe"
OTHER_VIEW = "under another mask or region"
GONE_RUN = "of runs that the log no longer holds"


@dataclass(frozen=True)
class Alarm:
    """An alarm that nobody called false: where its highest box lies in the judged frame, None where that is not known.

    `box` is x, y, width, height in pixels.
    """

    source: str
    box: tuple[float, float, float, float] | None


@dataclass(frozen=True, eq=False)
class Evidence:
    """What is known of the engine of that hash under the conditions in force.

    `good` (n,) are the scores of good parts: called good and not marked as missed, or marked as false alarms. `bad`
    (m,) are those of the others: alarms that nobody called false count as right. `marks` are all that the engine got
    under that recipe, mask and region, those at other thresholds too. `left_out` counts marks, by why. `judges_now` is
    the file of another engine that judged last by that recipe, empty where none took its place.
    """

    log: Path
    recipe: str
    threshold: float
    run: str
    since: str
    good: NDArray[np.float64]
    bad: NDArray[np.float64]
    alarms: frozenset[Alarm]
    marks: tuple[Marked, ...]
    left_out: Counter[str]
    judges_now: str = ""

    @property
    def at_threshold(self) -> list[Marked]:
        """The marks at the threshold in force."""
        return [mark for mark in self.marks if mark.threshold == self.threshold]

    @property
    def false_alarms(self) -> int:
        """How many of the marks are false alarms."""
        return sum(mark.false_alarm for mark in self.marks)

    @property
    def missed(self) -> int:
        """How many of the marks are missed parts."""
        return len(self.marks) - self.false_alarms

    @property
    def judged(self) -> int:
        """How many judgements count."""
        return len(self.good) + len(self.bad)


def read_evidence(log: Path, engine_sha256: str, recipe: str | None = None) -> Evidence:
    """Read what the log at `log` holds of an engine, also while a line writes it.

    Raises `UserError` where it has not judged with it, or with several recipes of which none is named.
    """
    said, stands = marks(log), standing(log)
    scan = _Scan(log, engine_sha256, stands)
    for record in judgements(log, Query(recipe=recipe)):
        scan.take(record)
    if recipe is None and len(scan.recipes) > 1:
        names = ", ".join(sorted(name or "(none)" for name in scan.recipes))
        raise UserError("--recipe must name one of the recipes with which the engine has judged", names)
    if scan.first is None:
        of_recipe = "" if recipe is None else f", with the recipe {recipe}"
        raise UserError(
            f"{log} must hold judgements by the engine {engine_sha256[:12]}{of_recipe}", "none", "name its --engine"
        )
    left_out = Counter({TAKEN_BACK: len({mark["judgement"] for mark in said} - stands.keys())})
    kept = []
    for mark in stands.values():
        if why := scan.why_not(mark["about"]):
            left_out[why] += 1
        else:
            kept.append(Marked.of(log, mark))
    scan.take_outlived(kept)
    return scan.evidence(kept, +left_out)


@dataclass
class _Scan:
    """Takes judgements, the newest first, and keeps those under the conditions of the first one."""

    log: Path
    engine_sha256: str
    stands: Mapping[int, Mapping[str, Any]]
    first: dict[str, Any] | None = None
    last: dict[str, dict[str, Any]] = field(default_factory=dict)  # what was judged last, by recipe
    since: str = ""
    recipes: set[str] = field(default_factory=set)
    good: "array[float]" = field(default_factory=lambda: array("d"))
    bad: "array[float]" = field(default_factory=lambda: array("d"))
    alarms: set[Alarm] = field(default_factory=set)
    taken: set[int] = field(default_factory=set)  # of those that are marked
    _views: dict[str, tuple[str, ...] | None] = field(default_factory=dict)

    def take(self, record: dict[str, Any]) -> None:
        """Take a judgement, if it counts."""
        unsaid = record["verdict"] == "none" or record["score"] is None or not record["answer"]
        self.last.setdefault(record["recipe"], record)
        if unsaid or record["engine_sha256"] != self.engine_sha256:
            return
        self.recipes.add(record["recipe"])
        if self.first is None:
            self.first = record
        if self.why_not(record) or record["threshold"] != self.first["threshold"]:
            return
        self.since = record["time"]
        self._count(record, self.stands.get(record["id"], {}).get("kind", ""))

    def take_outlived(self, kept: list[Marked]) -> None:
        """Take marks at the threshold whose judgements the log no longer holds."""
        assert self.first is not None
        for mark in kept:
            if mark.judgement not in self.taken and mark.threshold == self.first["threshold"]:
                (self.good if mark.false_alarm else self.bad).append(mark.score)

    def why_not(self, record: Mapping[str, Any]) -> str:
        """Say why a judgement was not made under these conditions; empty where it was."""
        assert self.first is not None
        digest = record.get("engine_sha256") or ""
        if digest != self.engine_sha256:
            return SEVERAL if self.engine_sha256 in digest else OTHER_ENGINE
        if record["recipe"] != self.first["recipe"]:
            return OTHER_RECIPE
        if record["recipe"]:  # a run's settings are those of the recipe that it began with
            return ""
        view = self._view(record["run"])
        return GONE_RUN if view is None else "" if view == self._view(self.first["run"]) else OTHER_VIEW

    def _view(self, run: str) -> tuple[str, ...] | None:
        if run not in self._views:
            settings = settings_of_run(self.log, run)
            self._views[run] = tuple(settings.get(name, "") for name in SEEN) if settings else None
        return self._views[run]

    def _count(self, record: dict[str, Any], kind: str) -> None:
        if kind:
            self.taken.add(record["id"])
        is_good = kind == FALSE_ALARM if record["verdict"] == "anomalous" else not kind
        (self.good if is_good else self.bad).append(record["score"])
        if record["verdict"] == "anomalous" and not kind:
            self.alarms.add(Alarm(record["source"], _highest(record["boxes"])))

    def evidence(self, kept: list[Marked], left_out: "Counter[str]") -> Evidence:
        """Return what was taken."""
        assert self.first is not None
        good, bad = (np.frombuffer(scores, np.float64) if scores else np.zeros(0) for scores in (self.good, self.bad))
        of = self.first
        where = (self.log, of["recipe"], of["threshold"], of["run"], self.since)
        last = self.last[of["recipe"]]
        other = "" if last["engine_sha256"] == self.engine_sha256 else last["engine"] or "another engine"
        return Evidence(*where, good, bad, frozenset(self.alarms), tuple(kept), left_out, other)


def _highest(boxes: str) -> tuple[float, float, float, float] | None:
    found = json.loads(boxes or "[]")
    return (found[0]["x"], found[0]["y"], found[0]["width"], found[0]["height"]) if found else None
