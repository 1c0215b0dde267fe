"""Lists of images as files: CSV with a header, JSON with one object an image, or Real-IAD's JSON of two such lists.

image,label,mask,split                     columns in any order and in small or capital letters; , ; or tab
parts/0001.png,good,,train
parts/0002.png,scratch,masks/0002.png,test

[{"image": "parts/0001.png", "label": "good", "split": "train"}, ...]
{"meta": {"prefix": "audiojack/"}, "train": [{"image_path": ..., "anomaly_class": "OK", ...}], "test": [...]}
"""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.common.errors import UserError
from runtime.common.files import read_json

# What each column may be called; the names of VisA, Real-IAD and anomalib among them.
NAMES = {
    "image": ("image", "path", "image_path", "file", "filename"),
    "label": ("label", "defect", "anomaly_class"),
    "mask": ("mask", "mask_path"),
    "split": ("split",),
    "group": ("object", "category", "product"),
}
LARGEST_BYTES = 256 << 20  # of a list: a million images
CURE = "mend it there"
SUFFIXES = frozenset({".csv", ".json"})
SPLITS = ("train", "test")


@dataclass(frozen=True)
class Row:
    """One image of a list: `where` in the file it stands, and its cells by our names of the columns."""

    where: str
    cells: dict[str, Any]


def is_list_file(path: Path) -> bool:
    """Whether the name of `path` says that it is a list, and it is a file."""
    return path.suffix.lower() in SUFFIXES and path.is_file()


def holds_images(path: Path) -> bool:
    """Whether a list file has images in it, and not something else (a record, a configuration)."""
    try:
        return any("image" in row.cells for row in read_rows(path))
    except UserError:
        return False


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a list. Raises `UserError` naming the line or entry that is wrong."""
    rows = list(_json_rows(path) if path.suffix.lower() == ".json" else _csv_rows(path))
    if not rows:
        raise UserError(f"{path} must list images", "none", "add a row for each image")
    return rows


def real_iad_meta(path: Path) -> dict[str, Any] | None:
    """Return the "meta" of a JSON file that is laid out as Real-IAD's are, None for any other list."""
    if path.suffix.lower() != ".json":
        return None
    content = read_json(path, LARGEST_BYTES, CURE)
    if not isinstance(content, dict):
        return None
    meta = content.get("meta")
    return meta if isinstance(meta, dict) else {}


def _csv_rows(path: Path) -> Iterator[Row]:
    text = _text(path)
    header = text.partition("\n")[0]
    delimiter = max(",;\t", key=header.count)  # Excel writes ; where the comma is a decimal point
    reader = csv.reader(text.splitlines(keepends=True), delimiter=delimiter, strict=True)
    try:
        titles = next(reader, [])
        columns = _columns(path, titles)
        for cells in reader:
            where = f"line {reader.line_num} of {path}"
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(titles):
                expected = f"{where} must have {len(titles)} columns, as the header has"
                raise UserError(expected, str(len(cells)), "quote a name that holds the separator")
            yield Row(where, {name: cells[index].strip() for name, index in columns.items()})
    except csv.Error as error:
        raise UserError(f"line {reader.line_num} of {path} must be CSV", str(error), "mend the line") from None


def _columns(path: Path, titles: list[str]) -> dict[str, int]:
    known = {alias: name for name, aliases in NAMES.items() for alias in aliases}
    columns: dict[str, int] = {}
    for index, title in enumerate(titles):
        name = known.get(title.strip().casefold())
        if name in columns:
            expected = f"the header of {path} must have one column for the {name}"
            raise UserError(expected, f"{titles[columns[name]]} and {title}", "remove one of them")
        if name:
            columns[name] = index
    if "image" not in columns:
        found = ", ".join(titles)[:120] or "an empty line"
        raise UserError(f"the header of {path} must have a column image", found, "it may have label, mask, split too")
    return columns


def _text(path: Path) -> str:
    with path.open("rb") as file:
        data = file.read(LARGEST_BYTES + 1)
    if len(data) > LARGEST_BYTES:
        raise UserError(f"{path} must be a list of at most {LARGEST_BYTES} bytes", "a larger file", CURE)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} must be text in UTF-8", f"byte {error.start} is none", "save it as UTF-8") from None


def _json_rows(path: Path) -> Iterator[Row]:
    content = read_json(path, LARGEST_BYTES, CURE)
    if isinstance(content, dict):
        lists = {split: content.get(split, []) for split in SPLITS}
        if not any(split in content for split in SPLITS) or not all(isinstance(one, list) for one in lists.values()):
            found = ", ".join(map(str, content))[:120] or "nothing"
            raise UserError(f"{path} must hold a list of images, or such lists as train and test", found)
        for split, entries in lists.items():
            for number, entry in enumerate(entries, 1):
                yield _entry(f"entry {number} of {split} in {path}", entry, split)
    elif isinstance(content, list):
        for number, entry in enumerate(content, 1):
            yield _entry(f"entry {number} of {path}", entry, None)
    else:
        raise UserError(f"{path} must hold a list of images", type(content).__name__)


def _entry(where: str, entry: Any, split: str | None) -> Row:
    if not isinstance(entry, dict):
        raise UserError(f"{where} must be an object with image, label, mask, split", json.dumps(entry)[:120])
    lower = {str(key).casefold(): value for key, value in entry.items()}
    cells = {name: lower[alias] for name, aliases in NAMES.items() for alias in aliases if alias in lower}
    return Row(where, cells if split is None else {**cells, "split": split})
