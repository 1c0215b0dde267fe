"""Every source's light, focus, colour, place and score over hours: a change that stays is said, and since when.

    judgements ─ offer ▶ one a second and source ─▶ a thread: numbers ─▶ Drift ─▶ alarm ─▶ told, audit, state file

The inspection's thread only hands a judgement over.
"""

import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from runtime.common.closing import Closing
from runtime.common.errors import UserError
from runtime.common.notices import say, say_once
from runtime.drift.alarm import Alarm, place
from runtime.drift.numbers import numbers_of
from runtime.drift.source import Change, Drift
from runtime.drift.store import put_aside, read_states, write_states
from runtime.drift.taps import roughness
from runtime.images.population import Population
from runtime.recipes.book import Recipes
from runtime.records.drifts import ACKNOWLEDGED, PREFIX, RENEWED
from runtime.sinks.delivery import Delivery
from runtime.sinks.judgement import Judgement
from runtime.sinks.queueing import Queueing

APART_S = 1.0  # seconds between measured frames of a source, at least
CORE_SHARE = 0.01  # of one core that all measuring takes at most: large frames of many sources are measured less often
SAVE_S = 600.0  # what a power cut may cost of what was learned
OF_STATE = ("source", "recipe", "engine_sha256")  # what a key says, in the state file
WATCH = "drift watch"  # who found it, in the audit
Key = tuple[str, str, str]  # source, recipe, SHA-256 of the engine
Enter = Callable[[str, str, str, str, str], None]  # what, old, new, who, origin: a row of the audit
Told = Callable[[Sequence[dict[str, Any]]], None]


class NoAlarm(Exception):
    """There is no alarm of that number any more."""


@dataclass(frozen=True)
class DriftOptions:
    """At most `rate` false alarms a month and source, on average; what was learned is kept in `state`."""

    rate: float = 1.0
    state: Path | None = None


class DriftWatch(Closing):
    """A receiver of judgements: watches each live source of `live`, with each engine and recipe apart.

    Frames without a verdict do not count, nor a frame sooner than `APART_S` after the last that did. `enter` writes the
    audit. Any thread may call anything.
    """

    def __init__(
        self,
        live: set[str],
        recipes: Recipes,
        options: DriftOptions | None = None,
        enter: Enter | None = None,
        tell: Callable[[str], None] = say,
    ) -> None:
        self._live, self._recipes, self._options = live, recipes, options or DriftOptions()
        self._tell, self._enter = tell, enter
        self._told: list[Told] = []
        self.found = 0  # alarms since the start
        self._lock, self._saving = threading.RLock(), threading.Lock()
        self._drifts: dict[Key, Drift] = {}
        self._views: dict[Key, str] = {}
        self._others: list[dict[str, Any]] = []  # states of what this run does not judge
        self._next_s: dict[str, float] = {}
        self._cost_s = 0.0  # of the last measurement
        self._next_number, self._saved_s = 1, time.monotonic()
        self._restore()
        self._delivery = Delivery(_Measuring(self._measure, self._save), Queueing(capacity=16, keep="newest"), say=tell)

    def offer(self, judgement: Judgement) -> None:
        """Have it measured, if it is its turn."""
        source, now_s = judgement.source, judgement.frame.monotonic_s
        if source not in self._live or judgement.result.verdict == "none" or now_s < self._next_s.get(source, now_s):
            return
        self._next_s[source] = now_s + max(APART_S, self._cost_s * len(self._live) / CORE_SHARE)
        # what a tap says is told from maps of one grid; a tiled detector's is of many, and is not kept
        self._delivery.offer(judgement.without_map() if judgement.tiles else judgement)

    def _measure(self, judgement: Judgement) -> None:
        began_s = time.thread_time()
        recipe = self._recipes[judgement.recipe]
        if judgement.engine_sha256 != recipe.engine_sha256:
            return  # judged just before another engine took its place, of which this recipe knows no more
        view, sidecar = judgement.view, recipe.first.detector.sidecar
        inside = None if view is None else view.inside_frame(judgement.frame.image.shape[:2])
        population = None if recipe.several or inside is not None else sidecar.population
        numbers = numbers_of(judgement.frame.image, sidecar.input_size, inside)
        numbers["score"] = judgement.result.image_score
        if population is not None and not judgement.tiles:
            numbers |= roughness(judgement.result.anomaly_map, population.grids)
        self._cost_s = time.thread_time() - began_s
        seen = "" if view is None else json.dumps(view.describe())
        with self._lock:
            drift, changes = self._drift_of(judgement, seen, list(numbers), population)
            changes += drift.add(numbers, judgement.frame.captured_s, self._next_number)
            unlike = drift.unlike_training()
        if unlike:
            self._tell(unlike)
        for change in changes:
            self._changed(change)
        if changes or time.monotonic() - self._saved_s > SAVE_S:
            self._save()

    def _drift_of(
        self, judgement: Judgement, seen: str, names: Sequence[str], population: Population | None
    ) -> tuple[Drift, list[Change]]:
        """Return the drift of its source, a new one where it was of something else, whose alarm then ends."""
        key = (judgement.source, judgement.recipe, judgement.engine_sha256)
        drift, changes = self._drifts.pop(key, None) or self._of_before(key), list[Change]()
        if drift is None or drift.names != tuple(names) or self._views[key] != seen:
            if drift is not None:
                self._tell(f"{place(*key[:2])}: other numbers, another region, mask or way up: drift learns anew")
                changes += [] if drift.alarm is None else [Change("ended", drift.alarm)]
            drift = Drift(judgement.source, judgement.recipe, names, population, self._options.rate)
        self._drifts[key], self._views[key] = drift, seen  # the last in use at the end
        return drift, changes

    def _of_before(self, key: Key) -> Drift | None:
        """Return what an earlier run knew of an engine that has just been put back; None where none did."""
        for state in self._others:
            if key == tuple(state[name] for name in OF_STATE):
                self._others.remove(state)
                self._restore_one(state)
                return self._drifts.pop(key, None)
        return None

    def _changed(self, change: Change) -> None:
        """Say, enter and pass on what has begun or ended."""
        alarm, what = change.alarm, PREFIX + place(change.alarm.source, change.alarm.recipe)
        if change.kind == "ended":
            self._tell(f"{place(alarm.source, alarm.recipe)}: {alarm.cause} is back where it was")
            self._audit(what, alarm.what(), "", WATCH, "values came back")
        else:
            if change.kind == "began":
                self._next_number, self.found = alarm.number + 1, self.found + 1
            self._tell(alarm.text())
            self._audit(what, "", alarm.what(), WATCH, f"frames of {alarm.source}")
        self._pass_on()

    def acknowledge(self, number: int, renew: bool, who: str, origin: str) -> None:
        """Enter that `who` knows of alarm `number`; with `renew` what is now is the new normal, else the alarm stands.

        Raises `NoAlarm`.
        """
        with self._lock:
            drift = next((one for one in self._drifts.values() if one.alarm and one.alarm.number == number), None)
            if drift is None or drift.alarm is None:
                raise NoAlarm(f"there is no drift alarm {number} any more")
            alarm = drift.alarm
            if renew:
                drift.renew()
            else:
                drift.alarm = replace(alarm, acknowledged_by=who)
        where = place(alarm.source, alarm.recipe)
        said = RENEWED if renew else ACKNOWLEDGED
        self._tell(f"{where}: drift of {alarm.cause} {said} by {who}")
        self._audit(PREFIX + where, alarm.what(), said, who, origin)
        self._save()
        self._pass_on()

    def _audit(self, what: str, old: str, new: str, who: str, origin: str) -> None:
        if self._enter is None:
            return
        try:
            self._enter(what, old, new, who, origin)
        except (OSError, UserError) as error:
            self._tell(f"the audit has no entry of the {what}: {error}")

    def tell_to(self, tell: Told) -> None:
        """Call `tell` now, and after each change, with all alarms that stand."""
        self._told.append(tell)
        tell([alarm.said() for alarm in self.alarms()])

    def _pass_on(self) -> None:
        said = [alarm.said() for alarm in self.alarms()]
        for tell in self._told:
            tell(said)

    def alarms(self) -> list[Alarm]:
        """Return those that stand, of every source."""
        with self._lock:
            return [drift.alarm for drift in self._drifts.values() if drift.alarm is not None]

    def states(self) -> list[dict[str, Any]]:
        """Return how far each source and recipe is: blocks learned, and the stability index of each number."""
        with self._lock:
            return [
                {
                    "source": drift.source,
                    "recipe": drift.recipe,
                    "learned": drift.learned,
                    "indices": {name: round(value, 4) for name, value in drift.indices.items()},
                }
                for drift in self._drifts.values()
            ]

    def _restore(self) -> None:
        """Go on where an earlier run was; its alarms stand, and are said again."""
        if self._options.state is None:
            return
        try:
            for state in read_states(self._options.state):
                self._restore_one(state)
        except (KeyError, TypeError, ValueError) as error:
            put_aside(self._options.state, f"{type(error).__name__}: {error}")
            self._drifts, self._views, self._others = {}, {}, []
        for alarm in self.alarms():
            known = f", acknowledged by {alarm.acknowledged_by}" if alarm.acknowledged_by else ""
            self._tell(f"{alarm.text()} (found before this start{known})")

    def _restore_one(self, state: dict[str, Any]) -> None:
        source, recipe, engine = (str(state[name]) for name in OF_STATE)
        judge = next((one for one in self._recipes.all if one.name == recipe), None)
        self._next_number = max(self._next_number, int(state["next_number"]))
        if source not in self._live or judge is None or judge.engine_sha256 != engine:
            self._others.append(state)
            return
        key = (source, recipe, engine)
        population = judge.first.detector.sidecar.population if state["compares"] else None
        drift = Drift(source, recipe, [str(name) for name in state["drift"]["names"]], population, self._options.rate)
        drift.restore(state["drift"])
        self._drifts[key], self._views[key] = drift, str(state["view"])

    def _save(self) -> None:
        self._saved_s = time.monotonic()
        if self._options.state is None:
            return
        with self._saving:  # a page that asks waits for no disk
            with self._lock:
                states = [*self._others, *(self._state(key) for key in self._drifts)]
            try:
                write_states(self._options.state, states)
            except OSError as error:
                say_once(f"{self._options.state}: a restart will forget what drift has learned: {error}")

    def _state(self, key: Key) -> dict[str, Any]:
        of = {**dict(zip(OF_STATE, key, strict=True)), "view": self._views[key]}
        drift = self._drifts[key]
        return {**of, "next_number": self._next_number, "compares": drift.compares, "drift": drift.to_json()}

    def settle(self) -> None:
        """Wait until all that was offered is measured."""
        while self._delivery.counts().queued:
            time.sleep(0.001)

    def close(self) -> None:
        """Measure what waits, and keep what was learned; a second call does nothing."""
        self._delivery.close()


class _Measuring(Closing):
    """The watch as its thread's sink."""

    name = WATCH

    def __init__(self, measure: Callable[[Judgement], None], save: Callable[[], None]) -> None:
        self._measure, self._save = measure, save

    def write(self, judgement: Judgement) -> None:
        """Measure a judgement."""
        self._measure(judgement)

    def close(self) -> None:
        """Keep what was learned."""
        self._save()
