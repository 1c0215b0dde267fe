"""The gate of a line: a recipe has verdicts only while a check of its reference parts has passed and is young enough.

cflow check ─▶ inspection log ─▶ gate (looks every second) ─▶ the recipe may judge, or its verdict is "none"
"""

import json
import math
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from runtime.common.closing import Closing
from runtime.common.errors import UserError
from runtime.common.notices import say
from runtime.recipes.book import Recipes, Standing
from runtime.recipes.recipe import Recipe
from runtime.records.checks import Check, newest_checks

LOOK_S = 1.0
AHEAD_S = 60.0  # that a check may seem to come from the future: clocks are corrected by seconds all the time
REMIND_S = 1800.0  # ahead, or a quarter of the time that a check holds, where that is less
NEVER = "no check of reference parts yet"
CURE = "run cflow check"


@dataclass
class _Taken:
    """A check that was seen: it holds until `until_s` of `time.monotonic`, which nobody sets back."""

    check: Check
    until_s: float
    reminded: bool = False


@dataclass(frozen=True)
class _Judging:
    """What judges: a recipe's name, the SHA-256 of its engines, its limits as text, its threshold (NaN: several)."""

    recipe: str
    engine_sha256: str
    limits: str
    threshold: float

    @classmethod
    def of(cls, recipe: Recipe) -> "_Judging":
        threshold = math.nan if recipe.several else recipe.first.detector.threshold
        return cls(recipe.name, recipe.engine_sha256, limits_of(recipe), threshold)


def limits_of(recipe: Recipe) -> str:
    """Return the thresholds that a recipe judges by, as text; of several entries each one's."""
    of_entries = {one.name: [one.detector.threshold, one.detector.map_threshold] for one in recipe.inspects}
    return json.dumps(of_entries)


class Gate(Closing):
    """Lets each of `recipes` judge for `every_s` seconds after a check of it in the log at `path` that passed.

    Looks in a thread of its own; `withheld` and `standings` may be asked from any thread and wait for nothing.
    """

    def __init__(self, path: Path, recipes: Recipes, every_s: float) -> None:
        self._path = path
        self._recipes = recipes
        self._every_s = every_s
        self._remind_s = min(REMIND_S, every_s / 4)
        self._taken: dict[tuple[str, str], _Taken] = {}  # by recipe and engine
        self._newest: dict[str, _Taken] = {}  # by recipe
        self._reasons: dict[str, str] = {}
        self._closing = threading.Event()
        self.look()
        self._thread = threading.Thread(target=self._run, name="checks", daemon=True)
        self._thread.start()

    def withheld(self, recipe: Recipe) -> str:
        """Return why `recipe` has no verdicts now; empty where it has."""
        return self._withheld(_Judging.of(recipe))

    def would_withhold(self, recipe: str, engine_sha256: str, limits: tuple[float, float]) -> str:
        """Return the same of another engine, as if it judged by the recipe of that name, with these limits."""
        text = json.dumps({"": list(limits)})
        return self._withheld(_Judging(recipe, engine_sha256, text, limits[0]))

    def _of(self, judging: _Judging) -> _Taken | None:
        """Return the newest check of that very engine; where there is none, of another one by that recipe."""
        return self._taken.get((judging.recipe, judging.engine_sha256)) or self._newest.get(judging.recipe)

    def _withheld(self, judging: _Judging) -> str:
        taken = self._of(judging)
        if taken is None:
            return f"{NEVER}; {CURE}"
        check = taken.check
        if not check.passed:
            return f"the check of reference parts failed ({check.text()}); {CURE}"
        if not _fits(check, judging):
            return f"the check of reference parts was made with another engine or threshold; {CURE}"
        if check.time_s > time.time() + AHEAD_S:
            return f"the check of reference parts is of a time to come: the clock was set back; {CURE}"
        if self._due_s(taken) <= 0:
            return f"the check of reference parts is too old; {CURE}"
        return ""

    def standings(self) -> list[Standing]:
        """Return how each recipe stands."""
        return [self._standing(recipe) for recipe in self._recipes.all]

    def _standing(self, recipe: Recipe) -> Standing:
        reason, taken = self.withheld(recipe), self._of(_Judging.of(recipe))
        return Standing(recipe.name, reason, None if reason or taken is None else self._due_s(taken))

    def _due_s(self, taken: _Taken) -> float:
        return min(taken.until_s - time.monotonic(), self._every_s - (time.time() - taken.check.time_s))

    def look(self) -> None:
        """Take the newest checks from the log, and say what changed, or is due soon; what was seen stays otherwise."""
        try:
            found = newest_checks(self._path)
        except (UserError, OSError):
            found = []  # a full disk, a file that is just being begun: what was seen before still counts
        for check, seen_s in found:
            of = check.recipe, check.engine_sha256
            before = self._taken.get(of)
            if before is None or before.check.id != check.id:
                age_s = max(time.time(), seen_s) - check.time_s
                self._taken[of] = _Taken(check, time.monotonic() + self._every_s - age_s)
            self._newest[check.recipe] = self._taken[of]
        self._tell()

    def _tell(self) -> None:
        for recipe in self._recipes.all:
            standing, taken = self._standing(recipe), self._of(_Judging.of(recipe))
            of = f"recipe {recipe.name}: " if recipe.name else ""
            if standing.reason != self._reasons.get(recipe.name):
                say(f"{of}no verdicts: {standing.reason}" if standing.reason else f"{of}check passed, verdicts go on")
                self._reasons[recipe.name] = standing.reason
            due_s = standing.due_s
            if taken is not None and due_s is not None and due_s <= self._remind_s and not taken.reminded:
                say(f"{of}a check of reference parts is due in {max(1, round(due_s / 60))} min; {CURE}")
                taken.reminded = True

    def _run(self) -> None:
        while not self._closing.wait(LOOK_S):
            self.look()

    def close(self) -> None:
        """Stop looking; a second call does nothing."""
        self._closing.set()
        self._thread.join()


def _fits(check: Check, judging: _Judging) -> bool:
    """Whether a check is of what judges now: the engine, and thresholds that part its parts as they did.

    A threshold that was moved between the good and the bad parts' scores leaves the check as it is.
    """
    if check.engine_sha256 != judging.engine_sha256:
        return False
    if check.limits == judging.limits:
        return True
    limit = judging.threshold
    if math.isnan(limit):
        return False
    return all(
        part["score"] is not None and (part["score"] > limit) == (part["expected"] == "anomalous")
        for part in check.parts
    )
