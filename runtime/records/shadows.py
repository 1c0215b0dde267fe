"""What a candidate said beside the engine that judged, in the inspection log: counts in all, and a row for each frame.

A comparison is of two engines with their thresholds, under one recipe: where one of these changes, another begins, and
where all are as before, the old one goes on. Its counts go into each new file of the log. The rows are of the frames on
which both gave a verdict, and go with the log's old files.
"""

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from runtime.common.moments import utc
from runtime.records.database import has_table, open_to_read, told
from runtime.records.marks import newest_file
from runtime.records.schema import COMPARISON_COLUMNS, INSERT_COMPARISON, INSERT_SHADOW, SHADOW_COLUMNS

GOOD, ANOMALOUS = "good", "anomalous"
PAIRS = {
    (GOOD, GOOD): "both_good",
    (ANOMALOUS, ANOMALOUS): "both_anomalous",
    (ANOMALOUS, GOOD): "running_only",
    (GOOD, ANOMALOUS): "candidate_only",
}


@dataclass(frozen=True)
class Comparison:
    """Which two engines, by their files' names and SHA-256, under which recipe (empty: none).

    `limits` are the thresholds of score and map, of the one that judges and of the candidate, as JSON; behind them the
    SHA-256 of the candidate's own masks, where it has some.
    """

    recipe: str
    running: str
    running_sha256: str
    candidate: str
    candidate_sha256: str
    limits: str


@dataclass(frozen=True)
class Counts:
    """What became of the frames. `running_only`: the engine that judges alone calls them anomalous.

    Events are disagreements, those of one kind that follow each other before one camera counted once. Not compared:
    `unjudged` had no verdict, the candidate had none for `candidate_none`, `failed` at, and was too slow for `skipped`.
    """

    both_good: int = 0
    both_anomalous: int = 0
    running_only: int = 0
    candidate_only: int = 0
    running_events: int = 0
    candidate_events: int = 0
    unjudged: int = 0
    candidate_none: int = 0
    failed: int = 0
    skipped: int = 0

    @property
    def compared(self) -> int:
        """Frames on which both gave a verdict."""
        return self.both_good + self.both_anomalous + self.running_only + self.candidate_only

    def plus(self, **more: int) -> "Counts":
        """Return them with more of some."""
        return replace(self, **{name: getattr(self, name) + count for name, count in more.items()})


def enter_shadow(
    connection: sqlite3.Connection, of: Comparison, counts: Counts, rows: Sequence[Mapping[str, Any]], began_s: float
) -> int:
    """Enter how a comparison stands and frames of it (by `SHADOW_COLUMNS`), in a transaction; return its number."""
    number = _number(connection, of)
    text = json.dumps(asdict(counts))
    if number is None:
        values = (utc(began_s), *asdict(of).values(), text)
        number = connection.execute(INSERT_COMPARISON, values).lastrowid
    else:
        connection.execute("UPDATE comparisons SET counts = ? WHERE id = ?", (text, number))
    assert number is not None
    known = ({**row, "comparison": number} for row in rows)
    connection.executemany(INSERT_SHADOW, [tuple(row[name] for name in SHADOW_COLUMNS) for row in known])
    return number


def _number(connection: sqlite3.Connection, of: Comparison) -> int | None:
    terms = " AND ".join(f"{name} = ?" for name in asdict(of))
    found = connection.execute(f"SELECT max(id) FROM comparisons WHERE {terms}", tuple(asdict(of).values())).fetchone()
    return None if found[0] is None else int(found[0])


def counts_of(log: Path, of: Comparison) -> Counts:
    """Return how a comparison stands in the log; all 0 where it has not begun. Raises as `open_to_read`."""
    with open_to_read(newest_file(log)) as connection, told(log):
        number = _number(connection, of) if has_table(connection, "comparisons") else None
        if number is None:
            return Counts()
        (text,) = connection.execute("SELECT counts FROM comparisons WHERE id = ?", (number,)).fetchone()
    return read_counts(text)


def read_counts(text: str) -> Counts:
    """Return counts as the log keeps them."""
    known = {field.name for field in fields(Counts)}
    return Counts(**{name: int(count) for name, count in json.loads(text).items() if name in known})


def comparisons_in(connection: sqlite3.Connection) -> dict[int, Comparison]:
    """Return the comparisons that a file of a log knows, by number."""
    rows = connection.execute(f"SELECT id, {', '.join(COMPARISON_COLUMNS)} FROM comparisons ORDER BY id").fetchall()
    return {number: Comparison(*row[: len(fields(Comparison))]) for number, _, *row in rows}


def pictures_of(log: Path) -> Path:
    """Return the folder of the pictures of disagreements: `inspections.shadow` for `inspections.db`."""
    return log.with_suffix(".shadow")
