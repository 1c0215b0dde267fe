"""Scores of a gauge study from a CSV file, or from an inspection log by part ids."""

import csv
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.common.errors import UserError
from runtime.records.read import Query, judgements

COLUMNS = "columns part, operator, trial, score, and verdict where there is one"
NOBODY = "-"


@dataclass(frozen=True)
class Study:
    """Scores (parts, operators, trials), the names along each, and verdicts by [part][operator], where known."""

    parts: list[str]
    operators: list[str]
    scores: NDArray[np.float64]
    verdicts: list[list[list[str]]] | None


Row = tuple[str, str, float, str]  # part, operator, score, verdict


def read_csv(path: Path) -> Study:
    """Read a study from a CSV file. Raises `UserError` for what is none."""
    if not path.is_file():
        raise UserError(f"{path} must be a CSV file with the {COLUMNS}", "no such file")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            found = [_row(path, line, row) for line, row in enumerate(csv.DictReader(file), 2)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} must be a CSV file (UTF-8)", str(error)) from None
    return study_of(str(path), found)


def _row(path: Path, line: int, row: dict[str, Any]) -> Row:
    part, operator, score, verdict = (
        (row.get(name) or "").strip() for name in ("part", "operator", "score", "verdict")
    )
    try:
        value = float(score)
    except ValueError:
        value = np.nan
    if not part or not np.isfinite(value):
        found = f"part {part!r}, score {score!r}"
        raise UserError(f"{path}, line {line} must have a part and a score", found, COLUMNS)
    return part, operator or NOBODY, value, verdict


def read_log(path: Path, query: Query) -> Study:
    """Read the judgements of parts from the log at `path`; a part's id may end in @ and who mounted it.

    Raises `UserError` for what is no log, and where there are none.
    """
    found = []
    for record in judgements(path, query, newest_first=False):
        if record["part"] and record["score"] is not None and record["answer"]:
            part, _, operator = record["part"].partition("@")
            found.append((part, operator or NOBODY, record["score"], record["verdict"]))
    return study_of(str(path), found)


def study_of(where: str, rows: list[Row]) -> Study:
    """Return rows as a study. Raises `UserError` unless each operator has measured each part equally often."""
    cells: dict[tuple[str, str], list[tuple[float, str]]] = defaultdict(list)
    for part, operator, score, verdict in rows:
        cells[part, operator].append((score, verdict))
    parts, operators = list(dict.fromkeys(row[0] for row in rows)), list(dict.fromkeys(row[1] for row in rows))
    counts = {len(cells.get((part, operator), ())) for part in parts for operator in operators}
    if len(counts) != 1:
        counted = {(p, o): len(cells.get((p, o), ())) for p in parts for o in operators}
        found = ", ".join(f"part {p} by {o} {n} times" for (p, o), n in sorted(counted.items(), key=lambda i: i[1])[:2])
        raise UserError(f"{where}: each operator must measure each part equally often", found or "no score", COLUMNS)
    scores = np.array([[[score for score, _ in cells[p, o]] for o in operators] for p in parts], np.float64)
    verdicts = [[[verdict for _, verdict in cells[p, o]] for o in operators] for p in parts]
    known = all(verdict for of_part in verdicts for cell in of_part for verdict in cell)
    return Study(parts, operators, scores, verdicts if known else None)
