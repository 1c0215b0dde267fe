"""A watch in which a drift alarm stands."""

from collections.abc import Callable

from runtime.drift.alarm import Alarm, Moved
from runtime.drift.source import Drift
from runtime.drift.watch import DriftWatch
from runtime.recipes.book import Recipes
from runtime.records.log import Log

MOVED = (Moved("light", 4.875, 4.825, -14.0), Moved("score", 0.5, 0.9, 3.0))
ALARM = Alarm(7, "camera:0", "", MOVED, 1_700_000_000.0, 1_700_000_900.0)


def standing(log: Log | None = None) -> Callable[[Recipes], DriftWatch]:
    """Return what makes a watch in which `ALARM` stands, its audit in `log`."""

    def make(recipes: Recipes) -> DriftWatch:
        watch = DriftWatch({"camera:0"}, recipes, enter=None if log is None else log.enter, tell=lambda text: None)
        drift = Drift("camera:0", "", ["light", "score"])
        drift.alarm, drift.indices = ALARM, {"light": 0.31}
        watch._drifts["camera:0", "", ""], watch._views["camera:0", "", ""] = drift, ""
        watch.found = 1
        return watch

    return make
