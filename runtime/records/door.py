"""The door of a log: its files stay where they are while a second process writes into one of them."""

import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from runtime.common.errors import UserError
from runtime.common.locks import one_writer
from runtime.common.pieces import pieces_of
from runtime.records.database import open_to_write, told


class Busy(UserError):
    """Another process is at the door."""


@contextmanager
def door(path: Path, patience_s: float = 0.0) -> Iterator[None]:
    """Be alone in moving the files of the log at `path`, or in writing into them beside their line.

    Raises `Busy` where another process still is there after `patience_s` seconds.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(one_writer(path.with_name(f"{path.name}.door"), str(path), "try again", patience_s))
        except UserError as error:
            raise Busy(str(error)) from None
        yield


@contextmanager
def beside(path: Path, patience_s: float) -> Iterator[sqlite3.Connection]:
    """Yield the log at `path`, beside its line; what is done with it is written as a whole or not at all.

    Its line, or another process, may hold it for `patience_s` seconds. Raises as `door` and `open_to_write`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with door(path, patience_s):
        older = pieces_of(path)
        with told(path), closing(open_to_write(path, older[-1] if older else None, patience_s)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")  # else closing undoes it
