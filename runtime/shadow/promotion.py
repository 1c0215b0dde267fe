"""A candidate takes the place of the engine that judges, and the old one comes back: one action each, no restart.

    asked ─▶ reasons against ─▶ engine opened ─▶ noted beside the old one ─▶ log (run, audit) ─▶ next frame or trigger

What cannot be noted is not done: a restart goes on with what the note says. The old engine then judges in shadow.
"""

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from runtime.common.errors import UserError
from runtime.common.moments import new_mark, utc
from runtime.common.notices import say
from runtime.detector import Detector
from runtime.engines.remote.address import EngineAt, RemoteEngine
from runtime.recipes import promoted
from runtime.recipes.book import Recipes
from runtime.recipes.promoted import ON_A_SERVER, Standing, Step
from runtime.recipes.recipe import Inspect, Recipe
from runtime.records.log import Log
from runtime.records.run import RunRecord, judged_by
from runtime.shadow.beside import Shadow
from runtime.shadow.candidate import Candidate
from runtime.shadow.word import ANYWAY

PROMOTE, ROLL_BACK = "promote", "rollback"
OWN_MASK = "a mask is not promoted: end the line, and start it with the mask by --mask"
NO_LOG = "a promotion is entered in the inspection log: start with --log FILE.db"


class Moved(Exception):
    """What is asked for is not what the page shows by now."""


class Against(Exception):
    """There are reasons against it, and it was not asked for in spite of them."""


@dataclass(frozen=True)
class Line:
    """What a promotion needs of the line: `run` is its record, `load` opens an engine as the line does.

    `log` is None where none is kept; `stack` closes the engines, after the inspection has ended.
    """

    recipes: Recipes
    run: RunRecord
    load: Callable[[EngineAt], Detector]
    log: Log | None
    stack: ExitStack


class Promotion:
    """Changes what judges by the recipe of `shadow`: `standing` is what the note says now, `named` the engine's hash.

    Any thread may call. Each change begins a new run in the log, so that every record names the engine that judged.
    """

    def __init__(self, line: Line, shadow: Shadow, standing: Standing, named: str) -> None:
        self._line = line
        self.shadow = shadow
        self._standing, self._named = standing, named
        self._lock = threading.Lock()
        one = line.recipes[shadow.recipe].first
        self._open = {one.engine.resolve(): one}

    @property
    def action(self) -> str:
        """What can be done with the engine in shadow: it is promoted, or it is the one before and comes back."""
        before = self._standing.before
        back = before is not None and before.resolve() == self.shadow.candidate.path.resolve()
        return ROLL_BACK if back else PROMOTE

    @property
    def files(self) -> tuple[EngineAt, ...]:
        """The engine that the line names, and the one in shadow."""
        return self._standing.named, self.shadow.candidate.path

    def report(self) -> dict[str, Any]:
        """Return what the page shows, as JSON has it."""
        found, rolls_back = self.shadow.report(), self.action == ROLL_BACK
        against = ([] if rolls_back else found["against"]) + self._unchecked()
        return {**found, "action": self.action, "against": against, "fixed": self._fixed}

    @property
    def _fixed(self) -> str:
        """Why nothing can be promoted here, whatever the figures say; empty where it can."""
        if self.shadow.candidate.views:
            return OWN_MASK
        if any(isinstance(path, RemoteEngine) for path in self.files):
            return ON_A_SERVER
        return "" if self._line.log else NO_LOG

    def _unchecked(self) -> list[str]:
        candidate = self.shadow.candidate
        why = self._line.recipes.would_withhold(self.shadow.recipe, candidate.sha256, candidate.limits)
        return [f"its verdicts would be none: {why}"] if why else []

    def change(self, action: str, candidate: str, override: str, who: str, origin: str) -> str:
        """Promote, or roll back to, the engine in shadow, whose SHA-256 is `candidate`; return its file's name.

        Raises `Moved`, `Against`, `UserError` or `OSError`, and then nothing has changed.
        """
        with self._lock:
            other = self.shadow.candidate
            if action != self.action or candidate != other.sha256:
                now = f"{other.path.name} ({other.sha256[:12]}) can be asked for, by {self.action}"
                raise Moved(f"this is not in shadow now; {now}; look at it, then try again")
            if self._fixed or self._line.log is None:
                raise UserError(self._fixed)
            against = ([] if action == ROLL_BACK else self.shadow.reasons()) + self._unchecked()
            if against and override != ANYWAY:
                raise Against("; ".join(against))
            self._do(other, self._line.log, action, against, who, origin)
            return other.path.name

    def _do(self, other: Candidate, log: Log, action: str, against: list[str], who: str, origin: str) -> None:
        recipes = self._line.recipes
        old = recipes[self.shadow.recipe]
        first = self._opened(other, old.first)
        new = replace(old, inspects=(first,), run=new_mark())
        new.check()
        before, after = self._standing, self._after(action, other, who, origin)
        change = f"{action}, in spite of: {'; '.join(against)}" if against else action

        def note() -> None:
            promoted.write(after, old.name, self._named)
            try:
                self._enter(log, old, new, change, who, origin)
            except BaseException:
                promoted.write(before, old.name, self._named)
                raise

        if refusal := recipes.replace(new, note):
            raise UserError(refusal)
        self._standing = after
        of = f"recipe {old.name}: " if old.name else ""
        say(f"{of}engine: {other.path.name} instead of {old.engine} ({change}; {who}, {origin})")
        self.shadow.swap(Candidate.of_inspect(old.first), new.run)

    def _after(self, action: str, other: Candidate, who: str, origin: str) -> Standing:
        if action == ROLL_BACK:
            return self._standing.back()
        assert isinstance(other.path, Path) and isinstance(self._standing.named, Path)  # `_fixed`
        return self._standing.on(Step.of(other.path, self._standing.named, other.sha256, who, origin))

    def _opened(self, other: Candidate, old: Inspect) -> Inspect:
        """Return the engine as the line runs it; one that has judged is open still. Raises where it is another."""
        assert isinstance(other.path, Path)  # `_fixed`
        now, cure = Candidate.of_file(other.path), "put it back, or start again"
        if now.sha256 != other.sha256:
            raise UserError(f"{other.path.name} must be the file that was compared", "another file", cure)
        named = other.path.resolve() == self._standing.named.resolve()  # the command line may give its threshold
        if now.limits != other.limits and not named:
            found = f"{now.limits[0]:.6g} in its sidecar"
            raise UserError(f"{other.path.name} must have the threshold {other.limits[0]:.6g} still", found, cure)
        place = other.path.resolve()
        if place not in self._open:
            detector = self._line.stack.enter_context(self._line.load(other.path))
            self._open[place] = other.inspect(detector, old)
        return self._open[place]

    def _enter(self, log: Log, old: Recipe, new: Recipe, change: str, who: str, origin: str) -> None:
        recipes = tuple(new.row if one[0] == new.row[0] else one for one in self._line.run.recipes)
        run = replace(self._line.run, id=new.run, started=utc(time.time()), recipes=recipes, **new.described())
        judges = judged_by(new.engine_sha256, new.sidecar_in_force, new.limits)
        in_force = judges if self._line.recipes.in_force is old else {}
        what = f"engine of {new.name or 'the line'}"
        entry = (what, f"{old.engine} {old.engine_sha256}", f"{new.engine} {new.engine_sha256}, {change}")
        log.promoted(run, in_force, [entry], who, origin)
