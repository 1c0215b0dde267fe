"""The rows of an archive as Parquet: the columns, and in each file's metadata by what it was judged."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime.archive.items import Shard
from runtime.archive.setup import Identity
from runtime.common.errors import UserError
from runtime.common.files import whole_file

if TYPE_CHECKING:
    import pyarrow as pa

INSTALL = "pip install 'cflow-edge[archive]'"
SCHEMA = "cflow-edge/scores/1"
KEY = b"cflow"
BY_NAME = [("name", "ascending")]
GROUP = 65536  # rows of a row group


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise UserError("scores are Parquet, which needs pyarrow", "none", INSTALL) from None
    return pyarrow


def columns() -> "pa.Schema":
    """Return the columns of a row."""
    pa = _pyarrow()
    box = pa.struct([*((name, pa.int32()) for name in ("x", "y", "width", "height")), ("peak", pa.float64())])
    return pa.schema(
        [
            ("name", pa.string()),
            ("score", pa.float64()),
            ("threshold", pa.float64()),
            ("verdict", pa.string()),
            ("reason", pa.string()),
            ("boxes", pa.list_(box)),
            ("error", pa.string()),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("bytes", pa.int64()),
            ("image_sha256", pa.string()),
            ("engine", pa.string()),
            ("engine_sha256", pa.string()),
            ("sidecar_sha256", pa.string()),
        ]
    )


def table_of(rows: Sequence[dict[str, Any]], identity: Identity) -> "pa.Table":
    """Return rows (`runtime.archive.judging`) as a table, with what is the same in all of them."""
    facts = identity.facts
    same = {name: facts[name] for name in ("threshold", "engine", "engine_sha256", "sidecar_sha256")}
    table: pa.Table = _pyarrow().Table.from_pylist([{**row, **same} for row in rows], columns())
    return table


@dataclass(frozen=True)
class Heading:
    """What a file says of itself: by what it was judged, and of which shard it is (None: of all of them)."""

    identity: Identity
    shard: Shard | None
    rows: int = 0

    def metadata(self) -> bytes:
        """Return it as it stands in the file."""
        shard = None if self.shard is None else [self.shard.number, self.shard.count]
        return json.dumps({"schema": SCHEMA, "judged": self.identity.facts, "shard": shard}, sort_keys=True).encode()


def write_table(path: Path, table: "pa.Table", heading: Heading) -> None:
    """Write a table by name, whole or not at all; the same rows are the same bytes."""
    write_batches(path, table.sort_by(BY_NAME).combine_chunks().to_batches(max_chunksize=GROUP), heading)


def write_batches(path: Path, batches: "Iterable[pa.RecordBatch]", heading: Heading) -> int:
    """Write batches of rows as they come, whole or not at all; return how many rows there were."""
    pa = _pyarrow()
    schema = columns().with_metadata({KEY: heading.metadata()})
    rows = 0
    with whole_file(path) as temporary, pa.parquet.ParquetWriter(temporary, schema, compression="zstd") as writer:
        for batch in batches:
            writer.write_batch(batch.cast(schema), row_group_size=GROUP)
            rows += batch.num_rows
    return rows


def read_table(path: Path, only: Sequence[str] | None = None) -> "pa.Table":
    """Read a file, `only` some columns of it. Raises `UserError` for one that is damaged."""
    pa = _pyarrow()
    try:
        table: Any = pa.parquet.read_table(path, columns=None if only is None else list(only), partitioning=None)
        return table
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} must be a whole Parquet file", _line(error), "remove it and judge again") from None


def read_batches(path: Path) -> "Iterable[pa.RecordBatch]":
    """Yield a file's rows, a row group at a time."""
    pa = _pyarrow()
    with pa.parquet.ParquetFile(path) as file:
        yield from file.iter_batches(batch_size=GROUP)


def heading_of(path: Path) -> Heading:
    """Return what a file says of itself. Raises `UserError` for one that is none of ours."""
    pa = _pyarrow()
    try:
        found = pa.parquet.read_metadata(path)
        said = json.loads((found.metadata or {})[KEY])
        if said["schema"] != SCHEMA:
            raise ValueError(said["schema"])
        shard = None if said["shard"] is None else Shard(*said["shard"])
        return Heading(Identity.from_facts(said["judged"]), shard, found.num_rows)
    except (pa.ArrowException, KeyError, TypeError, ValueError) as error:
        found = _line(error) if isinstance(error, pa.ArrowException) else "another file"
        raise UserError(f"{path} must be a table that cflow judge wrote", found, "check the path") from None


def _line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
