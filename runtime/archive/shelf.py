"""The folder of scores: a file for each shard that is finished, and until then a folder with its parts.

scores/000001-of-000004.parquet         a shard, whole
scores/parts/000002-of-000004/*.parquet another one under way
"""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime.archive.items import Item, Part, Shard, parts_of
from runtime.archive.setup import Identity
from runtime.archive.table import Heading, heading_of, read_table, table_of, write_table
from runtime.common.errors import UserError
from runtime.common.files import sweep, sync_folder
from runtime.common.locks import one_writer

if TYPE_CHECKING:
    import pyarrow as pa

PARTS = "parts"
SUFFIX = ".parquet"
ELSEWHERE = "name another --out, or judge as before"


@dataclass(frozen=True)
class Plan:
    """What is left to do of a shard: `parts`, of `images` images in all, `judged` of which have their row."""

    parts: tuple[Part, ...]
    images: int
    judged: int


class Shelf:
    """The place of one shard in the folder `out`; `identity` is by what it is judged."""

    def __init__(self, out: Path, shard: Shard, identity: Identity) -> None:
        self.out = out
        self.file = out / f"{shard.stem}{SUFFIX}"
        self._parts = out / PARTS / shard.stem
        self._heading = Heading(identity, shard)

    @contextmanager
    def ours(self) -> Iterator[None]:
        """Be the only process that judges this shard while open.

        Raises `UserError` where another one does, or where what lies in the folder was judged by anything else.
        """
        with one_writer(self.file, f"{self.file}", "let it end, or give it another --shard"):
            for folder in (self.out, self._parts):
                sweep(folder)
            self._check()
            yield

    def _check(self) -> None:
        others = [folder for folder in (self.out / PARTS).glob("*") if folder != self._parts]
        some = [file for folder in others for file in tables_in(folder)[:1]]
        for file in [*tables_in(self.out), *tables_in(self._parts), *some]:
            with suppress(FileNotFoundError):  # of another shard, which is finished just now
                check_same(file, heading_of(file), self._heading, ELSEWHERE)

    def plan(self, items: Sequence[Item], size: int, again: bool = False) -> Plan:
        """Return what is left to do of `items`, in parts of `size`; with `again` also what could not be read before."""
        done: set[str] = set()
        parts: list[Part] = []
        known = {item.name: item for item in items}
        for file in self._files():
            rows = read_table(file, ["name", "error"])
            names: list[str] = rows["name"].to_pylist()
            failed = [name for name, error in zip(names, rows["error"].to_pylist(), strict=True) if error]
            if again and failed:
                self._forget(file, failed)
                names = [name for name in names if name not in set(failed)]
            done.update(names)
        rest = [item for item in items if item.name not in done]
        parts += parts_of(rest, size)
        return Plan(tuple(parts), len(known), len(known) - len(rest))

    def _forget(self, file: Path, names: Sequence[str]) -> None:
        """Take the rows of those images out of a file."""
        import pyarrow.compute as pc

        table = read_table(file)
        kept = table.filter(pc.invert(pc.is_in(table["name"], value_set=_array(names))))
        write_table(file, kept, self._heading)

    def put(self, part: Part, rows: Sequence[dict[str, Any]]) -> None:
        """Keep the rows of a part: from now on it is not judged again."""
        write_table(self._parts / f"{part.stem}{SUFFIX}", table_of(rows, self._heading.identity), self._heading)

    def begin(self) -> None:
        """Say that the shard is under way, so that what is there of it is not taken for all of it."""
        self._parts.mkdir(parents=True, exist_ok=True)
        sync_folder(self._parts.parent)

    def finish(self) -> "pa.Table":
        """Put the shard's parts together into its file, by name; return the verdicts and errors of all its rows."""
        import pyarrow as pa

        if not self.file.is_file() or self._parts.is_dir():
            none = table_of([], self._heading.identity)
            write_table(self.file, pa.concat_tables([none, *self._tables()]), self._heading)
            sync_folder(self.out)
        if self._parts.is_dir():
            shutil.rmtree(self._parts)
        with suppress(OSError):  # other shards are under way
            self._parts.parent.rmdir()
        return read_table(self.file, ["verdict", "error"])

    def _tables(self) -> "Iterator[pa.Table]":
        """Yield what is there, no image twice: a run that ended just when the shard was whole left its parts behind."""
        import pyarrow.compute as pc

        seen: set[str] = set()
        for file in self._files():
            table = read_table(file)
            names = table["name"].to_pylist()
            if twice := seen.intersection(names):
                table = table.filter(pc.invert(pc.is_in(table["name"], value_set=_array(sorted(twice)))))
            seen.update(names)
            yield table

    def _files(self) -> list[Path]:
        whole = [self.file] if self.file.is_file() else []
        return [*whole, *tables_in(self._parts)]


def tables_in(folder: Path) -> list[Path]:
    """Return the tables in a folder that are whole, by name: those that are being written have hidden names."""
    return sorted(file for file in folder.glob(f"*{SUFFIX}") if not file.name.startswith("."))


def check_same(file: Path, found: Heading, wanted: Heading, cure: str) -> None:
    """Raise `UserError` where a file was judged by anything else, or is of another number of shards."""
    if difference := wanted.identity.differs(found.identity):
        what, ours, theirs = difference
        raise UserError(f"{file.parent} must be judged by one and the same: {what} {ours}", f"{theirs}", cure)
    if found.shard is not None and wanted.shard is not None and found.shard.count != wanted.shard.count:
        raise UserError(
            f"{file.parent} must hold shards of one archive in {wanted.shard.count}", f"{found.shard}", cure
        )


def _array(names: Sequence[str]) -> Any:
    import pyarrow

    return pyarrow.array(names, pyarrow.string())
