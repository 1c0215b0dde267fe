"""Checks with reference parts in the inspection log: written beside the line that writes it, and read."""

import json
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.common.files import printable
from runtime.common.moments import utc
from runtime.records.database import has_table, open_to_read, told
from runtime.records.door import beside
from runtime.records.read import files_of
from runtime.records.schema import CHECK_COLUMNS, INSERT_AUDIT, INSERT_CHECK

PATIENCE_S = 10.0  # for a line that writes, or begins a new file, just now
ORIGIN = "check"


@dataclass(frozen=True)
class Check:
    """What reference parts came to with a recipe (its name; empty without recipes), at `time_s` seconds since 1970.

    `limits` are the thresholds in force, as text; `parts` has each part's `name`, `expected` and found `verdict`,
    `recorded` and found `score`, and `why` it failed (empty: it did not). `after` is the number of the last judgement
    before it.
    """

    recipe: str
    engine_sha256: str
    limits: str
    passed: bool
    parts: tuple[dict[str, Any], ...]
    who: str
    origin: str
    time_s: float
    id: int = 0
    after: int = 0

    @property
    def failures(self) -> list[dict[str, Any]]:
        """The parts that did not come out as recorded."""
        return [part for part in self.parts if part["why"]]

    def text(self) -> str:
        """Return it in a few words."""
        if self.passed:
            return f"passed, {len(self.parts)} parts"
        return f"failed, {len(self.failures)} of {len(self.parts)} parts"


def add_check(path: Path, check: Check) -> None:
    """Write `check`, and its line of the audit, into the log at `path`, made where there is none.

    Also while a line writes it. On return it is on the disk. Raises `UserError` or `OSError`, with nothing written.
    """
    with beside(path, PATIENCE_S) as connection:
        last = "SELECT seq FROM sqlite_sequence WHERE name = 'inspections'"
        (after,) = connection.execute(last).fetchone() or (0,)
        texts = [printable(text) for text in (check.who, check.origin, check.recipe)]
        row = (utc(check.time_s), check.time_s, *texts, check.engine_sha256, check.limits, int(check.passed), after)
        connection.execute(INSERT_CHECK, (*row, json.dumps(check.parts)))
        _audit(connection, f"check {check.recipe}", check.text(), check.who, check.time_s)


def note_recorded(path: Path, recipe: str, text: str, who: str) -> None:
    """Enter in the audit of the log at `path` that reference parts were recorded; raises as `add_check`."""
    with beside(path, PATIENCE_S) as connection:
        _audit(connection, f"reference parts {recipe}", text, who, time.time())


def _audit(connection: sqlite3.Connection, what: str, new: str, who: str, time_s: float) -> None:
    values = (utc(time_s), printable(who), ORIGIN, printable(what.strip()), "", new, "")
    connection.execute(INSERT_AUDIT, values)


def newest_checks(path: Path) -> list[tuple[Check, float]]:
    """Return the newest check of each recipe and engine, the oldest first, with the latest capture (seconds since 1970)
    of a judgement after it.

    Raises `UserError` or `OSError` for what is no log.
    """
    found: list[tuple[Check, float]] = []
    with open_to_read(path) as connection, told(path):
        if has_table(connection, "checks"):
            newest = "id IN (SELECT max(id) FROM checks GROUP BY recipe, engine_sha256) ORDER BY id"
            rows = connection.execute(f"SELECT id, {', '.join(CHECK_COLUMNS)} FROM checks WHERE {newest}").fetchall()
            for check in map(_check, rows):
                last = "SELECT captured_s FROM inspections WHERE id > ? ORDER BY id DESC LIMIT 1"
                (seen_s,) = connection.execute(last, (check.after,)).fetchone() or (check.time_s,)
                found.append((check, max(seen_s, check.time_s)))
    return found


def checks(path: Path, since_s: float, until_s: float) -> Iterator[Check]:
    """Yield the checks of that time (seconds since 1970), the oldest first, over all files of the log."""
    known: set[int] = set()
    asked = f"SELECT id, {', '.join(CHECK_COLUMNS)} FROM checks WHERE time_s >= ? AND time_s < ? ORDER BY id"
    for file, connection in files_of(path, newest_first=False):
        with told(file):
            rows = connection.execute(asked, (since_s, until_s)).fetchall() if has_table(connection, "checks") else []
        for row in rows:
            if row[0] not in known:  # the newest of each recipe and engine is carried into the next file
                known.add(row[0])
                yield _check(row)


def _check(row: tuple[Any, ...]) -> Check:
    number, _, time_s, who, origin, recipe, engine, limits, passed, after, parts = row
    return Check(recipe, engine, limits, bool(passed), tuple(json.loads(parts)), who, origin, time_s, number, after)
