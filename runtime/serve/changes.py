"""What was changed, as the page shows it, and what the page changes itself."""

from collections.abc import Callable, Mapping
from typing import Any

from runtime.common.errors import UserError
from runtime.recipes.recipe import Recipe
from runtime.records.log import Log
from runtime.records.read import audit
from runtime.records.run import judged_by

SHOWN = 20  # changes, the newest


class Changes:
    """The audit of `log`, of nothing where there is none; `trouble` is told of what could not be entered."""

    def __init__(self, log: Log | None, trouble: Callable[[Exception], None]) -> None:
        self._log = log
        self._trouble = trouble

    @property
    def kept(self) -> bool:
        """Whether there is a log."""
        return self._log is not None

    def note(self, in_force: Mapping[str, str], who: str, origin: str) -> None:
        """Enter what was changed. It stands already: where it cannot be entered, that is said and counted."""
        if self._log is None:
            return
        try:
            self._log.note(in_force, who, origin)
        except (OSError, UserError) as error:
            self._trouble(error)

    def recipe(self, old: Recipe, new: Recipe, who: str, origin: str) -> None:
        """Enter that `new` judges instead of `old`, with all that this changes."""
        before = dict.fromkeys(old.audited, "")
        judges = judged_by(new.engine_sha256, new.sidecar_in_force, new.limits)
        self.note({**before, **new.audited, **judges}, who, origin)

    def newest(self) -> list[dict[str, Any]]:
        """Return the last changes, the newest first. Raises `OSError` or `UserError` where they cannot be read."""
        return [] if self._log is None else list(audit(self._log.path, SHOWN))
