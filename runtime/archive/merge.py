"""All shards of a folder in one file: only where every one is whole, and judged by one and the same."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.archive.items import Shard
from runtime.archive.shelf import PARTS, SUFFIX, check_same, tables_in
from runtime.archive.table import Heading, heading_of, read_batches, write_batches
from runtime.common.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

SHOWN = 10  # of the shards that are missing
CURE = "judge into one folder with one engine"


def merge(scores: Path, out: Path) -> tuple[int, int]:
    """Write the shards of the folder `scores` into the file `out`; return how many there are, and how many rows.

    Rows come by shard, and by name within each. Raises `UserError` for shards that are missing or under way.
    """
    files = whole_shards(scores)
    first = heading_of(files[0])
    rows = write_batches(out, _batches(files), Heading(first.identity, None))
    return len(files), rows


def whole_shards(scores: Path) -> list[Path]:
    """Return the files of all shards in a folder, in order. Raises `UserError` where one is missing."""
    files = tables_in(scores)
    if not files:
        raise UserError(f"{scores} must be a folder of scores", "no shard that is finished", "cflow judge writes them")
    headings = {file: heading_of(file) for file in files}
    first = headings[files[0]]
    if first.shard is None:
        raise UserError(f"{scores} must hold shards", f"{files[0].name}, which is merged already", "name it elsewhere")
    for file, heading in headings.items():
        check_same(file, heading, first, CURE)
    wanted = [Shard(number, first.shard.count) for number in range(1, first.shard.count + 1)]
    known = {heading.shard for heading in headings.values()}
    begun = {folder.name for folder in (scores / PARTS).glob("*") if folder.is_dir()}
    lacking = [shard for shard in wanted if shard not in known or shard.stem in begun]
    if lacking:
        named = ", ".join(map(str, lacking[:SHOWN])) + (f" and {len(lacking) - SHOWN} more" if lacking[SHOWN:] else "")
        raise UserError(f"{scores} must hold all {len(wanted)} shards, finished", f"not {named}", "judge those first")
    return [scores / f"{shard.stem}{SUFFIX}" for shard in wanted]


def _batches(files: list[Path]) -> "Iterator[pa.RecordBatch]":
    for file in files:
        yield from read_batches(file)
