"""The rows as a table for a person, as Markdown and as JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from tests.reliability.result import Result

HEADS = ("attack or fault", "tries", "wrong or lost", "what happened")


def _cells(results: Sequence[Result]) -> list[tuple[str, str, str, str]]:
    return [(f"{r.group}: {r.attack}", f"{r.tries:,}", f"{r.wrong:,}", r.details) for r in results]


def as_text(results: Sequence[Result]) -> str:
    """Return the table for a console."""
    rows = [HEADS, *_cells(results)]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(
        f"{row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]}".rstrip() for row in rows
    )


def as_markdown(results: Sequence[Result]) -> str:
    """Return the table of docs/reliability.md."""
    lines = [f"| {' | '.join(HEADS)} |", "|---|---:|---:|---|"]
    escaped = (tuple(cell.replace("|", "\\|") for cell in row) for row in _cells(results))
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in escaped)]) + "\n"


def as_json(results: Sequence[Result]) -> str:
    """Return the rows as JSON."""
    return json.dumps([asdict(result) for result in results], indent=2) + "\n"
