"""The inspection log, read: beside its writer, over all its files, a page at a time.

No page holds a file for longer than it takes to read some hundred rows: a reader that held it would keep the writer
from emptying its write-ahead log.
"""

import json
import math
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from runtime.common.errors import UserError
from runtime.common.locks import is_at
from runtime.common.moments import utc
from runtime.common.pieces import pieces_of
from runtime.records.database import open_to_read, told, version_of
from runtime.records.schema import AUDIT_COLUMNS

PAGE = 500  # rows
OPEN_AGAIN = 20  # times, where the writer begins a new file just while we look
AGAIN_S = 0.02
# of a record, with what each is: an export has them in this order
FIELDS: dict[str, type] = {
    "id": int,
    "time": str,
    "part": str,
    "recipe": str,
    "verdict": str,
    "score": float,
    "threshold": float,
    "reason": str,
    "source": str,
    "name": str,
    "frame": int,
    "age_ms": float,
    "trigger": str,
    "asked": str,
    "answer_ms": float,
    "late": int,
    "answer": int,
    "decision": str,
    "camera_s": float,
    "boxes": str,
    "latency_ms": str,
    "parts": str,
    "run": str,
    "version": str,
    "engine": str,
    "engine_sha256": str,
    "sidecar_sha256": str,
}
OF_RUNS = ("version", "engine", "engine_sha256", "sidecar_sha256")
OF_RECIPES = OF_RUNS[1:]  # where a recipe judged
RECIPES_SINCE = 2  # the version of the tables
MOMENTS = {"time": "captured_s", "asked": "asked_s"}


@dataclass(frozen=True)
class Query:
    """Which judgements: those of a `part`, of frames captured from `since_s` until before `until_s`, with a `verdict`,
    by a `recipe`.

    `number` is that of one. Times are seconds since 1970; None: any.
    """

    part: str | None = None
    since_s: float | None = None
    until_s: float | None = None
    verdict: str | None = None
    recipe: str | None = None
    number: int | None = None

    def conditions(self) -> tuple[str, list[Any]]:
        """Return it as SQL. The + keeps the time's index out: pages go by number, and the index finds their range."""
        terms = {
            "i.part = ?": self.part,
            "+i.captured_s >= ?": self.since_s,
            "+i.captured_s < ?": self.until_s,
            "i.verdict = ?": self.verdict,
            "i.recipe = ?": self.recipe,
            "i.id = ?": self.number,
        }
        given = {term: value for term, value in terms.items() if value is not None}
        return " AND ".join(["i.id > ?", "i.id < ?", *given]), list(given.values())


def judgements(path: Path, query: Query, newest_first: bool = True) -> Iterator[dict[str, Any]]:
    """Yield the judgements of the log at `path` as records of `FIELDS`; "boxes", "latency_ms", "parts" are JSON.

    Raises `UserError` or `OSError` for what is no log.
    """
    for file, connection in files_of(path, newest_first):
        with told(file):
            yield from _of_file(connection, query, newest_first)


def audit(path: Path, most: int = -1) -> Iterator[dict[str, Any]]:
    """Yield the changes that the log at `path` knows of, `most` at most, the newest first. Raises as `judgements`."""
    with open_to_read(path) as connection:
        if version_of(connection, path):
            asked = f"SELECT {', '.join(AUDIT_COLUMNS)} FROM audit ORDER BY id DESC LIMIT ?"
            for row in connection.execute(asked, (most,)).fetchall():
                yield dict(zip(AUDIT_COLUMNS, row, strict=True))


@cache
def options_of_run(path: Path, run: str) -> dict[str, Any]:
    """Return the command line's options of a run, for where its pictures lie; empty where it is not known any more."""
    return _of_run(path, run, "options")


@cache
def settings_of_run(path: Path, run: str) -> dict[str, str]:
    """Return a run's settings, those whose change an audit asks for; empty where it is not known any more."""
    return _of_run(path, run, "settings")


def _of_run(path: Path, run: str, column: str) -> dict[str, Any]:
    for file, connection in files_of(path, newest_first=True):
        with told(file):
            found = connection.execute(f"SELECT {column} FROM runs WHERE id = ?", (run,)).fetchone()
        if found:
            values: dict[str, Any] = json.loads(found[0])
            return values
    return {}


def files_of(path: Path, newest_first: bool) -> Iterator[tuple[Path, sqlite3.Connection]]:
    """Yield every file of the log, open; the newest is opened before the others are listed, so that none is missed."""
    with ExitStack() as stack:
        newest, place = _newest(path, stack)
        older = [piece for piece in pieces_of(path) if place is None or not is_at(place, piece)]
        if newest is not None and newest_first and version_of(newest, path):
            yield path, newest
        for piece in reversed(older) if newest_first else older:
            with ExitStack() as inner:
                try:
                    connection = inner.enter_context(open_to_read(piece))
                except UserError:
                    if piece.exists():
                        raise
                    continue  # it has just gone, at the cap
                yield piece, connection
        if newest is not None and not newest_first and version_of(newest, path):
            yield path, newest


def _newest(path: Path, stack: ExitStack) -> tuple[sqlite3.Connection | None, os.stat_result | None]:
    """Open the newest file, and be sure that it is: the writer may begin a new one just now."""
    for attempt in range(1, OPEN_AGAIN + 1):
        if not path.exists() and path.parent.is_dir() and pieces_of(path):
            return None, None
        place = path.stat() if path.exists() else None
        with ExitStack() as inner:
            try:
                connection = inner.enter_context(open_to_read(path))
            except (UserError, OSError):
                if place is None or (attempt == OPEN_AGAIN and is_at(place, path)):
                    raise
                time.sleep(AGAIN_S)  # it may have become an older one just now, or is being begun
                continue
            if place is not None and is_at(place, path):  # before and after: so it is what was opened in between
                stack.enter_context(inner.pop_all())
                return connection, place
    raise UserError(f"{path} must be a file that stays", "another one each time", "try again")


def _of_file(connection: sqlite3.Connection, query: Query, newest_first: bool) -> Iterator[dict[str, Any]]:
    low, high = _numbers(connection, query)
    terms, values = query.conditions()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    recipes = OF_RECIPES if version >= RECIPES_SINCE else ()
    columns = [_column(name, recipes) for name in FIELDS]
    order = "DESC" if newest_first else "ASC"
    asked = (
        f"SELECT {', '.join(columns)} FROM inspections i LEFT JOIN runs r ON r.id = i.run "
        f"{'LEFT JOIN recipes c ON c.run = i.run AND c.recipe = i.recipe ' if recipes else ''}"
        f"WHERE {terms} ORDER BY i.id {order} LIMIT {PAGE}"
    )
    while rows := connection.execute(asked, (low, high, *values)).fetchall():
        yield from map(_record, rows)
        low, high = (low, rows[-1][0]) if newest_first else (rows[-1][0], high)


def _column(name: str, of_recipes: Sequence[str]) -> str:
    if name in of_recipes:
        return f"COALESCE(c.{name}, r.{name})"
    if name == "parts" and not of_recipes:  # an older file has none
        return "''"
    return f"r.{name}" if name in OF_RUNS else f"i.{MOMENTS.get(name, name)}"


def _numbers(connection: sqlite3.Connection, query: Query) -> tuple[int, int]:
    """Return numbers below and above those of all judgements in the query's time."""
    since_s = -math.inf if query.since_s is None else query.since_s
    until_s = math.inf if query.until_s is None else query.until_s
    asked = "SELECT min(id), max(id) FROM inspections"
    timed = f"{asked} WHERE captured_s >= ? AND captured_s < ?"
    untimed = query.since_s is None and query.until_s is None
    first, last = (connection.execute(asked) if untimed else connection.execute(timed, (since_s, until_s))).fetchone()
    return (0, 0) if first is None else (first - 1, last + 1)


def _record(row: tuple[Any, ...]) -> dict[str, Any]:
    record = dict(zip(FIELDS, row, strict=True))
    record["parts"] = record["parts"] or None
    return record | {name: utc(record[name]) for name in MOMENTS if record[name] is not None}
