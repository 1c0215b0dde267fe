"""What a candidate said of marked judgements, and in a period, read from the inspection log."""

import math
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from runtime.records.database import has_table, told
from runtime.records.marks import FALSE_ALARM, MISSED
from runtime.records.read import files_of
from runtime.records.schema import SHADOW_COLUMNS
from runtime.records.shadows import PAIRS, Comparison, comparisons_in

T = TypeVar("T")
_Count = tuple[Comparison, str, int, int]  # of a comparison, by a name of `PAIRS`: frames, disagreements


@dataclass(frozen=True)
class Marked:
    """What the candidate said of judgements that people marked: `counts` by (kind of the mark, its verdict).

    `events` are the numbers of the disagreements that were marked, by kind of the mark; `unknown` marks are of
    judgements that were not compared.
    """

    counts: Counter[tuple[str, str]]
    events: Mapping[str, frozenset[int]]
    unknown: int = 0

    @classmethod
    def nothing(cls) -> "Marked":
        """Return what is known where nobody marked anything."""
        return cls(Counter(), {FALSE_ALARM: frozenset(), MISSED: frozenset()})


def said_of(log: Path, marks: Mapping[int, Mapping[str, Any]]) -> dict[int, dict[str, Any]]:
    """Return what a candidate said of marked judgements (`runtime.records.marks.standing`), by their number.

    Those that were not compared are left out. Each is a row of `SHADOW_COLUMNS`, with its comparison as `of`.
    """
    left = dict(marks)
    found: dict[int, dict[str, Any]] = {}
    asked = f"SELECT {', '.join(SHADOW_COLUMNS)} FROM shadow WHERE frame = ? AND source = ? AND run = ?"

    def look(connection: sqlite3.Connection, comparisons: Mapping[int, Comparison]) -> None:
        for number, mark in list(left.items()):
            about = mark["about"]
            row = connection.execute(asked, (about["frame"], about["source"], about["run"])).fetchone()
            said = None if row is None else dict(zip(SHADOW_COLUMNS, row, strict=True))
            if said is not None and said["verdict"] == about["verdict"] and said["comparison"] in comparisons:
                found[number] = {**said, "of": comparisons[said["comparison"]]}
                del left[number]

    for _ in _asked(log, True, look):
        if not left:
            break
    return found


def marked(marks: Mapping[int, Mapping[str, Any]], said: Mapping[int, Mapping[str, Any]], of: Comparison) -> Marked:
    """Return what the candidate of a comparison said of `marks`, of `said_of` them; others' are left out."""
    counts: Counter[tuple[str, str]] = Counter()
    events: dict[str, set[int]] = {FALSE_ALARM: set(), MISSED: set()}
    unknown = 0
    for number, mark in marks.items():
        one = said.get(number)
        if one is None:
            unknown += 1
        elif one["of"] == of:
            counts[mark["kind"], one["candidate"]] += 1
            if one["event"]:
                events[mark["kind"]].add(one["event"])
    return Marked(counts, {kind: frozenset(numbers) for kind, numbers in events.items()}, unknown)


def compared(log: Path, since_s: float, until_s: float) -> Iterator[_Count]:
    """Yield (comparison, name of `PAIRS`, frames, disagreements) of frames captured in that time, file by file."""
    grouped = "SELECT comparison, verdict, candidate, count(*), count(DISTINCT event) FROM shadow"
    asked = f"{grouped} WHERE captured_s >= ? AND captured_s < ? GROUP BY comparison, verdict, candidate"

    def count(connection: sqlite3.Connection, comparisons: Mapping[int, Comparison]) -> list[_Count]:
        rows = connection.execute(asked, (since_s, until_s)).fetchall()
        known = [row for row in rows if row[0] in comparisons]
        return [(comparisons[of], PAIRS[verdict, candidate], *counts) for of, verdict, candidate, *counts in known]

    for found in _asked(log, False, count):
        yield from found


def pictured(
    log: Path, most: int, of: Comparison | None = None, since_s: float = -math.inf, until_s: float = math.inf
) -> list[dict[str, Any]]:
    """Return the newest disagreements that have a picture, the newest first, each with its comparison as `of`.

    Where one is given as `of`, those of it alone; of frames captured in that time.
    """
    terms = "picture != '' AND captured_s >= ? AND captured_s < ? AND comparison IN"

    def look(connection: sqlite3.Connection, comparisons: Mapping[int, Comparison]) -> list[dict[str, Any]]:
        known = {number: one for number, one in comparisons.items() if of in (None, one)}
        asked = f"SELECT {', '.join(SHADOW_COLUMNS)} FROM shadow WHERE {terms} ({', '.join(map(str, known))})"
        rows = connection.execute(f"{asked} ORDER BY captured_s DESC LIMIT ?", (since_s, until_s, most)).fetchall()
        ones = (dict(zip(SHADOW_COLUMNS, row, strict=True)) for row in rows)
        return [{**one, "of": known[one["comparison"]]} for one in ones]

    found: list[dict[str, Any]] = []
    for of_file in _asked(log, True, look):
        found += of_file
        if len(found) >= most:
            break
    return found[:most]


def _asked(
    log: Path, newest_first: bool, ask: Callable[[sqlite3.Connection, Mapping[int, Comparison]], T]
) -> Iterator[T]:
    """Yield what each file of the log answers that has compared anything; `ask` is given the comparisons in it."""
    for file, connection in files_of(log, newest_first=newest_first):
        with told(file):
            if not has_table(connection, "shadow"):
                continue
            found = ask(connection, comparisons_in(connection))
        yield found
