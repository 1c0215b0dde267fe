"""What people say of judgements: marks in the inspection log, which are added to and never changed.

A mark keeps all that the log knew of its judgement, and its picture lies in a folder beside the log, so that the cap
takes neither away. The newest file has the marks of the whole log. To undo is a mark too.
"""

import json
import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runtime.common.errors import UserError
from runtime.common.files import printable
from runtime.common.moments import utc
from runtime.common.pieces import pieces_of
from runtime.records.database import has_table, open_to_read
from runtime.records.door import beside
from runtime.records.read import Query, judgements
from runtime.records.schema import INSERT_AUDIT, INSERT_MARK, MARK_COLUMNS

FALSE_ALARM, MISSED, WITHDRAWN = "false_alarm", "missed", "withdrawn"
CORRECTS = {FALSE_ALARM: "anomalous", MISSED: "good"}  # the verdict that each says is wrong
LONGEST_REASON = 300  # characters
LONGEST_WHO = 64
MOST_BOXES = 50  # that a mark keeps, those with the highest peaks
ROW_BYTES = 300  # of a mark besides what it is about
PATIENCE_S = 5.0  # for another who marks, which takes milliseconds


class Refused(UserError):
    """A mark that does not fit its judgement: marked already, nothing to undo, or the verdict is another."""


class Unknown(UserError):
    """A judgement that the log does not hold."""


@dataclass(frozen=True)
class Mark:
    """One thing that `who` said of a judgement, a record of `runtime.records.read` in `about`.

    `kind` is `FALSE_ALARM`, `MISSED` or `WITHDRAWN`; `origin` is where it was said; `picture` the file's name in
    `pictures_of(log)`, empty where none was kept.
    """

    about: Mapping[str, Any]
    kind: str
    reason: str = ""
    who: str = ""
    origin: str = ""
    picture: str = ""
    time: str = field(default_factory=lambda: utc(time.time()))

    def row(self) -> tuple[Any, ...]:
        """Return the values of `MARK_COLUMNS`."""
        kept = {name: value for name, value in self.about.items() if value is not None}
        kept["boxes"] = json.dumps(json.loads(kept.get("boxes", "[]"))[:MOST_BOXES])
        said = (printable(self.reason[:LONGEST_REASON]), printable(self.who), printable(self.origin))
        return (self.time, self.about["id"], self.kind, *said, self.picture, json.dumps(kept))


def pictures_of(log: Path) -> Path:
    """Return the folder of the pictures that marks are about: `inspections.marks` for `inspections.db`."""
    return log.with_suffix(".marks")


def judgement(log: Path, number: int) -> dict[str, Any]:
    """Return the judgement `number`, from the log or from a mark that outlived it. Raises `Unknown`."""
    found = next(judgements(log, Query(number=number)), None) if number > 0 else None
    if found is None:
        found = next((mark["about"] for mark in marks(log) if mark["judgement"] == number), None)
    if found is None:
        raise Unknown(f"{log} must hold the judgement {number}", "none of that number", "cflow trace lists them")
    return found


def marks(log: Path) -> list[dict[str, Any]]:
    """Return all marks of the log, the oldest first, with "about" as a record. Raises as `judgements`."""
    columns = ("id", *MARK_COLUMNS)
    file = newest_file(log)
    with open_to_read(file) as connection:
        if not has_table(connection, "marks"):
            return []
        rows = connection.execute(f"SELECT {', '.join(columns)} FROM marks ORDER BY id").fetchall()
    found = [dict(zip(columns, row, strict=True)) for row in rows]
    return [{**mark, "about": json.loads(mark["about"])} for mark in found]


def newest_mark(log: Path) -> int:
    """Return the number of the mark that was made last; 0 where there is none. Raises as `judgements`."""
    with open_to_read(newest_file(log)) as connection:
        if not has_table(connection, "marks"):
            return 0
        (number,) = connection.execute("SELECT max(id) FROM marks").fetchone()
    return number or 0


def has_marks(log: Path) -> bool:
    """Whether the log can hold marks: one of an older release cannot. Raises as `judgements`."""
    with open_to_read(newest_file(log)) as connection:
        return has_table(connection, "marks")


def standing(log: Path) -> dict[int, dict[str, Any]]:
    """Return the marks that were not withdrawn, by the number of their judgement, the one marked last at the end."""
    last: dict[int, dict[str, Any]] = {}
    for mark in marks(log):
        last.pop(mark["judgement"], None)
        last[mark["judgement"]] = mark
    return {number: mark for number, mark in last.items() if mark["kind"] != WITHDRAWN}


def add_mark(log: Path, mark: Mark) -> None:
    """Enter a mark from beside the log's writer, which may run. Raises `Refused`, `UserError` or `OSError`."""
    newest_file(log)  # a mark makes no log
    with beside(log, PATIENCE_S) as connection:
        enter_mark(connection, mark)


def enter_mark(connection: sqlite3.Connection, mark: Mark) -> None:
    """Enter a mark, and in the audit that it was made; in a transaction. Raises `Refused`."""
    number = mark.about["id"]
    asked = "SELECT kind, who, time FROM marks WHERE judgement = ? ORDER BY id DESC LIMIT 1"
    kind, who, moment = connection.execute(asked, (number,)).fetchone() or (WITHDRAWN, "", "")
    _check(mark, kind, f"{kind.replace('_', ' ')} by {who or 'somebody'}, {moment}")
    connection.execute(INSERT_MARK, mark.row())
    said = f"{mark.kind}: {mark.reason}" if mark.reason else mark.kind
    change = (mark.time, mark.who, mark.origin, f"judgement {number}", "" if kind == WITHDRAWN else kind, said, "")
    connection.execute(INSERT_AUDIT, tuple(map(printable, change)))


def _check(mark: Mark, before: str, said: str) -> None:
    number, verdict = mark.about["id"], mark.about["verdict"]
    if mark.kind == WITHDRAWN:
        if before == WITHDRAWN:
            raise Refused(f"judgement {number} must be marked to be undone", "no mark", "look at the marks again")
    elif before != WITHDRAWN:
        raise Refused(f"judgement {number} must not be marked yet", said, "undo that first")
    elif verdict != CORRECTS[mark.kind]:
        expected = f"a judgement that is marked {mark.kind.replace('_', ' ')} must be {CORRECTS[mark.kind]}"
        raise Refused(expected, f"judgement {number}: {verdict}", "false alarms were anomalous, misses were good")


def carried_bytes(connection: sqlite3.Connection) -> int:
    """Return about how much of a file the marks take, which each new file takes over."""
    asked = f"SELECT coalesce(sum(length(about)), 0) + {ROW_BYTES} * count(*) FROM marks"
    (size,) = connection.execute(asked).fetchone()
    return int(size)


def newest_file(log: Path) -> Path:
    """Return the newest file of the log. Raises `UserError` where there is none."""
    older = pieces_of(log) if log.parent.is_dir() and not log.exists() else []
    if not older and not log.is_file():
        found = "a folder" if log.is_dir() else "no such file"
        raise UserError(f"{log} must be an inspection log", found, "name what runtime.infer --log writes")
    return older[-1] if older else log
