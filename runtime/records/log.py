"""The inspection log, written: judgements in transactions, and who changed what.

    inspections.db          the newest; its audit table is that of the whole log
    inspections.000001.db   older ones, the oldest first to go

A judgement's number (`id`) counts through all files and never comes twice: it is the order in which they were judged,
whatever the clock said.
"""

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from runtime.common.closing import Closing
from runtime.common.errors import UserError
from runtime.common.files import printable
from runtime.common.locks import is_at
from runtime.common.moments import utc
from runtime.common.notices import say_once
from runtime.common.pieces import PIECES, next_piece, pieces_of
from runtime.records.database import SIDE_FILES, Held, open_to_write, told
from runtime.records.door import Busy, door
from runtime.records.marks import Mark, Refused, carried_bytes, enter_mark
from runtime.records.run import RunRecord
from runtime.records.schema import INSERT_AUDIT, INSERT_INSPECTION
from runtime.records.shadows import Comparison, Counts, enter_shadow

SMALLEST_CAP = 16_000_000  # bytes
FULL = 0.75  # of a file's share of the cap: what one transaction more may need is left free
AT_START = "start"  # the origin of a change that was found when a run began


class Log(Closing):
    """Writes the log at `path`; any thread may call. One process at a time (`runtime.common.locks.one_writer`).

    `cap_bytes` bounds all its files, `keep_s` is how long one is kept after its last judgement; both take whole files,
    the oldest first. A file that others removed or renamed is begun anew. Every call raises `UserError` or `OSError`,
    with nothing written, where the file cannot be written; the next call tries again.
    """

    def __init__(self, path: Path, cap_bytes: int | None = None, keep_s: float | None = None) -> None:
        if cap_bytes is not None and cap_bytes < SMALLEST_CAP:
            raise UserError("--log-cap must be at least 16MB", f"{cap_bytes} bytes")
        self.path = path
        self._full_bytes = None if cap_bytes is None else int(FULL * cap_bytes / PIECES)
        self._keep_s = keep_s
        self._runs: dict[str, RunRecord] = {}
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._place: os.stat_result | None = None  # the file that is open
        self._open()
        self._remove_old()

    def begin(self, run: RunRecord) -> None:
        """Enter a run, and in the audit what is in force now and was not before."""
        with self._lock:
            with self._transaction() as connection:
                _enter(connection, run)
                _compare(connection, run.in_force(), run.who, AT_START, run.id, whole=True)
            self._runs[run.id] = run

    def note(self, in_force: Mapping[str, str], who: str, origin: str, run: str = "") -> None:
        """Enter in the audit what of `in_force` is new; the rest is as it was. `origin` is where it came from."""
        with self._lock, self._transaction() as connection:
            _compare(connection, in_force, who, origin, run)

    def enter(self, what: str, old: str, new: str, who: str, origin: str) -> None:
        """Enter in the audit what happened and is no setting: no later start is compared with it."""
        row = (utc(time.time()), *map(printable, (who, origin, what, old, new)), "")
        with self._lock, self._transaction() as connection:
            connection.execute(INSERT_AUDIT, row)

    def append(self, rows: Sequence[Sequence[Any]]) -> None:
        """Write judgements (values of `INSPECTION_COLUMNS`) in one transaction: on return they are on the disk."""
        with self._lock:
            self._insert(rows)
            if not self._is_there():  # removed just now, and the rows with it
                self._insert(rows)
            self._make_room()

    def _insert(self, rows: Sequence[Sequence[Any]]) -> None:
        with self._transaction() as connection:
            connection.executemany(INSERT_INSPECTION, rows)

    def mark(self, mark: Mark) -> None:
        """Enter what a person says of a judgement: on return it is on the disk. Raises `Refused` too."""
        with self._lock:
            for _ in range(2):  # again where the file was removed just now, and the mark with it
                with self._transaction() as connection:
                    enter_mark(connection, mark)
                if self._is_there():
                    return

    def shadow(self, of: Comparison, counts: Counts, rows: Sequence[Mapping[str, Any]]) -> int:
        """Enter how a comparison stands and what was compared, by `SHADOW_COLUMNS`; return its number."""
        with self._lock:
            with self._transaction() as connection:
                number = enter_shadow(connection, of, counts, rows, time.time())
            self._make_room()
            return number

    def promoted(
        self,
        run: RunRecord,
        in_force: Mapping[str, str],
        entries: Sequence[tuple[str, str, str]],
        who: str,
        origin: str,
    ) -> None:
        """Enter the run that begins with another engine, what is `in_force` by it, and (what, old, new) in the audit.

        All or nothing; on return it is on the disk.
        """
        with self._lock:
            with self._transaction() as connection:
                _enter(connection, run)
                for entry in entries:
                    connection.execute(INSERT_AUDIT, (utc(time.time()), who, origin, *map(printable, entry), run.id))
                _compare(connection, in_force, who, origin, run.id)
            self._runs[run.id] = run

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        with self._lock:
            self._drop()

    def _open(self) -> sqlite3.Connection:
        older = pieces_of(self.path) if self.path.parent.is_dir() else []
        self._connection = connection = open_to_write(self.path, older[-1] if older else None)
        self._place = self.path.stat()
        with told(self.path):
            for run in self._runs.values():
                _enter(connection, run)
        return connection

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def _is_there(self) -> bool:
        return self._place is not None and is_at(self._place, self.path)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Yield the connection; what is done with it is written as a whole or not at all."""
        try:
            if self._connection is None or not self._is_there():
                self._drop()
                self._open()
            connection = self._connection
            assert connection is not None
            with told(self.path):
                connection.execute("BEGIN IMMEDIATE")
                try:
                    yield connection
                    connection.execute("COMMIT")
                except BaseException:
                    with contextlib.suppress(sqlite3.Error):  # a full disk has done it already
                        connection.execute("ROLLBACK")
                    raise
        except (Held, Refused):
            raise
        except Exception:
            self._drop()  # opened anew by the next call: what is wrong with the disk may have passed by then
            raise

    def _make_room(self) -> None:
        """Begin a new file where the present one has its share of the cap or of the time; undoes nothing."""
        try:
            if self._connection is not None and (self._is_full() or self._is_old()):
                self._begin_piece(self._connection)
        except (OSError, UserError, sqlite3.Error) as error:
            self._drop()
            say_once(f"{self.path}: cannot begin a new file, the present one grows: {error}")

    def _is_full(self) -> bool:
        if self._full_bytes is None or self._bytes() < self._full_bytes:
            return False
        assert self._connection is not None
        _empty_wal(self._connection)
        carried = carried_bytes(self._connection)  # what a new file begins with would make each one full
        return self._bytes() - carried >= self._full_bytes

    def _bytes(self) -> int:
        return sum(path.stat().st_size for path in _with_side_files(self.path) if path.exists())

    def _is_old(self) -> bool:
        if self._keep_s is None:
            return False
        assert self._connection is not None
        ends = "SELECT captured_s FROM inspections ORDER BY id {} LIMIT 1"
        first, last = (self._connection.execute(ends.format(way)).fetchone() for way in ("ASC", "DESC"))
        return bool(first) and last[0] - first[0] > self._keep_s / PIECES

    def _begin_piece(self, connection: sqlite3.Connection) -> None:
        if not _empty_wal(connection):
            return  # somebody reads; the next transaction tries again
        try:
            with door(self.path):  # a check or a mark may just be written; the next transaction tries again
                self._drop()
                piece = next_piece(self.path)
                files = zip(_with_side_files(self.path), _with_side_files(piece), strict=True)
                for present, older in files:  # who still reads goes on with the files that he has opened
                    with contextlib.suppress(FileNotFoundError):
                        present.replace(older)
                self._open()
        except Busy:
            return
        self._remove_old()

    def _remove_old(self) -> None:
        older = pieces_of(self.path)
        too_many = 0 if self._full_bytes is None else max(0, len(older) + 1 - PIECES)
        past_s = None if self._keep_s is None else time.time() - self._keep_s
        for place, piece in enumerate(older):
            if place < too_many or (past_s is not None and piece.stat().st_mtime < past_s):
                for path in _with_side_files(piece):
                    path.unlink(missing_ok=True)


def _with_side_files(path: Path) -> list[Path]:
    return [path.with_name(f"{path.name}{suffix}") for suffix in ("", *SIDE_FILES)]


def _empty_wal(connection: sqlite3.Connection) -> bool:
    """Put all of the write-ahead log into the database; return whether nobody who reads kept that from ending."""
    (busy, *_) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return not busy


def _enter(connection: sqlite3.Connection, run: RunRecord) -> None:
    values = run.row()
    connection.execute(f"INSERT OR IGNORE INTO runs VALUES ({', '.join('?' * len(values))})", values)
    connection.executemany("INSERT OR IGNORE INTO recipes VALUES (?, ?, ?, ?, ?)", run.recipe_rows())


def _compare(
    connection: sqlite3.Connection, now: Mapping[str, str], who: str, origin: str, run: str, whole: bool = False
) -> None:
    """Enter the differences between what was in force and what is `now`; `whole`: what is not in it is no more."""
    before: dict[str, str] = dict(connection.execute("SELECT what, value FROM in_force").fetchall())
    changes = [(what, old, value) for what, value in now.items() if (old := before.get(what, "")) != value]
    if whole:
        changes += [(what, value, "") for what, value in before.items() if what not in now]
    if not before:
        connection.execute(INSERT_AUDIT, (utc(time.time()), who, origin, "log", "", "begun", run))
    for what, old, new in changes:
        if before:
            connection.execute(INSERT_AUDIT, (utc(time.time()), who, origin, what, old, new, run))
        connection.execute("INSERT OR REPLACE INTO in_force VALUES (?, ?)", (what, new))
    connection.execute("DELETE FROM in_force WHERE value = ''")
