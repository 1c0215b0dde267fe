"""The frames that an inspection log's line kept: of marked judgements beside the log, and of events.

Both are frames as they were judged, cut and turned already: a mark's is a PNG and gives the score that it gave, an
event's a JPEG of high quality and gives nearly that.
"""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from runtime.archive.items import Item, Seen
from runtime.common.files import printable, safe_name
from runtime.records.marks import pictures_of, standing
from runtime.records.read import Query, judgements, options_of_run

SUFFIX = ".db"


def pictures(log: Path) -> Iterator[Item]:
    """Yield the frames of the judgements in the log at `log` that were kept, as NUMBER/NAME.

    Also of marks that outlived their judgements. Raises `UserError` or `OSError` for what is no log.
    """
    marked = standing(log)
    for record in judgements(log, Query(), newest_first=False):
        mark = marked.pop(record["id"], None)
        place = _of_mark(log, mark) or _of_event(log, record)
        if place is not None:
            yield _item(log, record, place)
    for mark in marked.values():
        if (place := _of_mark(log, mark)) is not None:
            yield _item(log, mark["about"], place)


def _item(log: Path, record: dict[str, Any], place: Path) -> Item:
    seen = Seen(str(log), record.get("run") or "", record.get("recipe") or "", record["source"])
    name = f"{record['id']:012d}/{printable(record['name'])}"
    return Item(name, str(place), seen=seen)


def _of_mark(log: Path, mark: dict[str, Any] | None) -> Path | None:
    if mark is None or not mark["picture"]:
        return None
    place = pictures_of(log) / Path(mark["picture"]).name
    return place if place.is_file() else None


def _of_event(log: Path, record: dict[str, Any]) -> Path | None:
    options = options_of_run(log, record["run"])
    if "events" not in options:
        return None
    known = _events(Path(options["folder"], options["events"]), safe_name(record["source"]))
    return known.get((f"{record['name']}.jpg", record["run"]))


@cache
def _events(folder: Path, source: str) -> dict[tuple[str, str], Path]:
    """Return where the frames of a source's events lie, by their file's name and their run."""
    found = {}
    for event in folder.glob(f"*Z_{source}_*"):
        run = _run_of(event / "frames.jsonl")
        found.update({(frame.name, run): frame for frame in (event / "frames").glob("*.jpg")})
    return found


def _run_of(lines: Path) -> str:
    try:
        with lines.open(encoding="utf-8") as file:
            return str(json.loads(file.readline()).get("run", ""))
    except (OSError, ValueError):
        return ""
