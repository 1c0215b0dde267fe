"""A folder of reference parts: which there are, what they must come out as, and what they scored when recorded.

parts/good/, parts/bad/     an image of each part; its name without the suffix is the part's name
parts/parts.csv             or a list instead: part,expected,image (the image may be left out for --live)
parts/reference.json        what `cflow check --record` wrote: scores by recipe, of the files and of --live
"""

import csv
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from runtime.common.errors import UserError
from runtime.common.files import check_regular, printable, read_json, safe_name, sha256_of, write_json
from runtime.common.moments import utc
from runtime.images.folders import list_images
from runtime.result import Verdict

SCHEMA = "cflow-edge/reference-parts/1"
RECORD, LIST = "reference.json", "parts.csv"
LARGEST = 16 << 20  # bytes of either file
EXPECTED: dict[str, Verdict] = {"good": "good", "bad": "anomalous"}
LAYOUT = f"put images into good/ and bad/, or write {LIST} with the columns part,expected,image"


@dataclass(frozen=True)
class ReferencePart:
    """A known part: what it must come out as, and its image, where there is one."""

    name: str
    expected: Verdict
    image: Path | None = None


@dataclass(frozen=True)
class Recorded:
    """What a part was when it was recorded; `sha256` is that of its image's file, empty for --live."""

    name: str
    expected: str
    score: float
    sha256: str = ""


def folder_of(folder: Path, recipe: str) -> Path | None:
    """Return where the parts of a recipe lie: the folder of its name in `folder`, or `folder` where it has parts."""
    own = folder / safe_name(recipe)
    if recipe and own.is_dir():
        return own
    return folder if any((folder / name).exists() for name in (*EXPECTED, LIST)) else None


def read_parts(folder: Path) -> list[ReferencePart]:
    """Return the reference parts in `folder`, good ones first. Raises `UserError` where none can be read."""
    if not folder.is_dir():
        raise UserError(f"{folder} must be a folder of reference parts", "no folder", LAYOUT)
    parts = _listed(folder / LIST) if (folder / LIST).exists() else _in_folders(folder)
    for expected in EXPECTED.values():
        if not any(part.expected == expected for part in parts):
            word = next(word for word, verdict in EXPECTED.items() if verdict == expected)
            raise UserError(f"{folder} must hold at least one good and one bad part", f"no {word} one", LAYOUT)
    names = [part.name for part in parts]
    if twice := next((name for i, name in enumerate(names) if name in names[:i]), None):
        raise UserError(f"{folder}: each part must have a name of its own", f"{twice!r} twice", "rename one")
    return parts


def _in_folders(folder: Path) -> list[ReferencePart]:
    found = [(folder / word, verdict) for word, verdict in EXPECTED.items() if (folder / word).is_dir()]
    return [
        ReferencePart(printable(f"{inner.name}/{path.stem}"), verdict, path)
        for inner, verdict in found
        for path in list_images(inner)
    ]


def _listed(path: Path) -> list[ReferencePart]:
    check_regular(path, f"{path} must be a CSV file")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} must be a CSV file (UTF-8)", str(error)) from None
    return [_row(path, place, row) for place, row in enumerate(rows, 2)]


def _row(path: Path, line: int, row: Mapping[str | None, Any]) -> ReferencePart:
    name, word, image = ((row.get(key) or "").strip() for key in ("part", "expected", "image"))
    if not name or word not in EXPECTED:
        raise UserError(f"{path}, line {line} must have a part and expected: good or bad", repr(name or word), LAYOUT)
    return ReferencePart(printable(name), EXPECTED[word], path.parent / image if image else None)


def read_recorded(folder: Path, recipe: str, way: str, engine_sha256: str) -> dict[str, Recorded]:
    """Return what was recorded of each part in `folder` with a recipe, from files or live (`way`), by the part's name.

    Raises `UserError` where nothing was, where it cannot be read, and where another engine was recorded.
    """
    cure = "run it once with --record, and look at what it says"
    path = folder / RECORD
    ways = _entries(path).get(recipe, {}) if path.exists() else {}
    entry = ways.get(_of(way, engine_sha256)) or ways.get(way)
    of = f" with recipe {recipe}" if recipe else ""
    if entry is None:
        raise UserError(f"the parts of {folder} must have been recorded{of} ({way})", "no record", cure)
    if entry["engine_sha256"] != engine_sha256:
        found = f"a record of another engine ({entry['engine_sha256'][:12]})"
        raise UserError(f"the parts of {folder} must have been recorded{of} with this engine", found, cure)
    return {part["name"]: Recorded(**part) for part in entry["parts"]}


def _entries(path: Path) -> dict[str, dict[str, Any]]:
    value = read_json(path, LARGEST, "record the parts again, with --record")
    try:
        if value["schema"] != SCHEMA:
            raise ValueError(value["schema"])
        entries: dict[str, dict[str, Any]] = value["recipes"]
        for ways in entries.values():
            for entry in ways.values():
                str(entry["engine_sha256"])
                [(Recorded(**part), float(part["score"])) for part in entry["parts"]]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        found = f"something else ({error})"
        raise UserError(f"{path} must be a record of reference parts", found, "remove it, and --record again") from None
    return entries


def write_recorded(folder: Path, recipe: str, way: str, engine_sha256: str, who: str, parts: list[Recorded]) -> None:
    """Write what parts scored into the record of `folder`; what stands there of other recipes stays."""
    path = folder / RECORD
    entries = _entries(path) if path.exists() else {}
    entry = {
        "recorded": utc(time.time()),
        "who": printable(who),
        "engine_sha256": engine_sha256,
        "parts": [asdict(part) for part in parts],
    }
    ways = entries.setdefault(recipe, {})
    before = ways.get(way)
    if before is not None and before["engine_sha256"] != engine_sha256:  # a candidate stands beside what judges
        ways[_of(way, before["engine_sha256"])] = before
    ways.pop(_of(way, engine_sha256), None)
    ways[way] = entry
    write_json(path, {"schema": SCHEMA, "recipes": entries})


def _of(way: str, engine_sha256: str) -> str:
    """Return what the record of an engine goes by that is not the one recorded last."""
    return f"{way} {engine_sha256}"


def image_hash(part: ReferencePart) -> str:
    """Return the SHA-256 of a part's image, empty where there is none."""
    return "" if part.image is None or not part.image.is_file() else sha256_of(part.image)
