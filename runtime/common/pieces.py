"""Files that are cut into pieces before they fill the disk: `frames.jsonl`, and before it `frames.000001.jsonl`, ..."""

import re
from pathlib import Path

PIECES = 16  # a capped file is at most this many pieces; the oldest goes when the next is begun


def pieces_of(path: Path) -> list[Path]:
    """Return the older pieces of the file at `path`, the oldest first."""
    pattern = re.compile(re.escape(path.stem) + r"\.\d{6,}" + re.escape(path.suffix))
    found = [other for other in path.parent.iterdir() if pattern.fullmatch(other.name)]
    return sorted(found, key=_number)


def next_piece(path: Path) -> Path:
    """Return the name that the file at `path` gets when it becomes a piece."""
    older = pieces_of(path)
    number = _number(older[-1]) + 1 if older else 1
    return path.with_name(f"{path.stem}.{number:06d}{path.suffix}")


def _number(piece: Path) -> int:
    return int(piece.stem.rpartition(".")[2])
