"""Records of the inspection log as a table for other programs: CSV and Parquet, written as they are read."""

import csv
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

from runtime.common.errors import UserError
from runtime.common.files import whole_file
from runtime.records.read import FIELDS

GROUP = 10_000  # rows that are in memory at a time
PARQUET_CURE = "pip install 'cflow-edge[parquet]'"

Record = dict[str, Any]


def write_csv(path: Path, records: Iterable[Record]) -> int:
    """Write `records` of `FIELDS`, whole or not at all, and return how many there were; none: no file.

    UTF-8 with a heading; what is not known is an empty cell.
    """
    found = _any(records)
    if found is None:
        return 0
    with whole_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        count = 0
        for count, record in enumerate(found, 1):  # noqa: B007
            writer.writerow(record)
    return count


def write_parquet(path: Path, records: Iterable[Record]) -> int:
    """Write `records` as `write_csv` does, into a Parquet file. Raises `UserError` where pyarrow is not installed."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ModuleNotFoundError:
        raise UserError("--parquet needs pyarrow", "none", PARQUET_CURE) from None
    kinds = {int: pyarrow.int64(), float: pyarrow.float64(), str: pyarrow.string()}
    schema = pyarrow.schema([(name, kinds[kind]) for name, kind in FIELDS.items()])
    found = _any(records)
    if found is None:
        return 0
    count = 0
    with whole_file(path) as temporary, parquet.ParquetWriter(temporary, schema) as writer:
        for group in _groups(found):
            writer.write_table(pyarrow.Table.from_pylist(group, schema))
            count += len(group)
    return count


def _any(records: Iterable[Record]) -> Iterator[Record] | None:
    """Return all of them; None where there are none."""
    rest = iter(records)
    first = list(islice(rest, 1))
    return chain(first, rest) if first else None


def _groups(records: Iterator[Record]) -> Iterator[list[Record]]:
    while group := list(islice(records, GROUP)):
        yield group
