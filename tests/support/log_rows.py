"""Rows for an inspection log, without an engine."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from runtime.records.read import Query, judgements
from runtime.sinks.inspection_log import row_of
from tests.support.judgements import judgement


def rows(first: int, count: int, score: float = 0.5, source: str = "camera:0") -> list[tuple[Any, ...]]:
    """Return rows of frames `first`, `first` + 1, ..., 25 a second."""
    return [row_of(judgement(index, score, source, size=(4, 4))) for index in range(first, first + count)]


def frames(path: Path, query: Query | None = None) -> list[int]:
    """Return the numbers of the frames in the log, the oldest first."""
    return [record["frame"] for record in judgements(path, query or Query(), newest_first=False)]


def asked(path: Path, words: str) -> list[tuple[Any, ...]]:
    """Return what a plain connection of SQLite answers."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(words).fetchall()
