"""An inspection log as a file of SQLite: opened to be written, or read beside its writer."""

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from runtime.common.errors import UserError
from runtime.common.files import check_regular
from runtime.records import schema

BUSY_S = 2.0  # that another program may hold the file, a viewer of databases say
SIDE_FILES = ("-wal", "-shm")  # SQLite's, beside the database while it is open
# what a new file takes over from the one before it: of checks the newest, which the line goes by
CARRIED = {
    "audit": "",
    "in_force": "",
    "marks": "",
    "sqlite_sequence": "",
    "checks": " WHERE id IN (SELECT max(id) FROM checks GROUP BY recipe, engine_sha256)",
    "comparisons": " WHERE id > (SELECT max(id) FROM comparisons) - 100",
}


class Held(UserError):
    """Another program holds the log for longer than `BUSY_S`."""


def trouble(error: sqlite3.Error, path: Path) -> OSError | UserError:
    """Return what SQLite says of the file at `path`: a full disk, or one line with its cure."""
    text = str(error)
    if "full" in text:
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    if "not a database" in text:
        return UserError(f"{path} must be an inspection log", "another kind of file", "name another file for --log")
    if "locked" in text:
        return Held(f"{path} must be free to be written", "another program that holds it", "close that program")
    if "readonly" in text or "unable to open" in text:
        cure = "it and its folder must belong to who runs this"
        return UserError(f"{path} must be a file that can be opened and written", text, cure)
    if "malformed" in text:
        return UserError(
            f"{path} must be whole", "a damaged file", "move it away; sqlite3 FILE .recover reads the rest"
        )
    return OSError(errno.EIO, text, str(path))


@contextmanager
def told(path: Path) -> Iterator[None]:
    """Turn what SQLite raises within into `OSError` or `UserError`."""
    try:
        yield
    except sqlite3.Error as error:
        raise trouble(error, path) from None


def open_to_write(path: Path, before: Path | None = None, busy_s: float = BUSY_S) -> sqlite3.Connection:
    """Open the log at `path`, made where there is none, and brought to the present version.

    A new one takes over what is `CARRIED` from the file `before` it. Another program may hold it for `busy_s` seconds.
    Raises `UserError` or `OSError` for a file that is no log, of a newer version, or cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    check_regular(path, f"{path} must be a file")
    with told(path):
        connection = sqlite3.connect(path, timeout=busy_s, isolation_level=None, check_same_thread=False)
    try:
        with told(path):
            version = version_of(connection, path)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")  # what was committed outlives a power cut
            if version < len(schema.MIGRATIONS):
                _migrate(connection, version, before)
        return connection
    except BaseException:
        connection.close()
        raise


@contextmanager
def open_to_read(path: Path) -> Iterator[sqlite3.Connection]:
    """Open the log at `path` beside its writer, of whom it takes nothing but time to read.

    Raises `UserError` or `OSError` for a file that is no log, is not there, or is of a newer version.
    """
    if not path.is_file():
        raise UserError(f"{path} must be an inspection log", "a folder" if path.is_dir() else "no such file")
    with told(path), closing(_read_only(path)) as connection:
        version_of(connection, path)
        yield connection


def _read_only(path: Path) -> sqlite3.Connection:
    address = f"file:{quote(os.fsencode(path))}?mode=ro"
    connection = sqlite3.connect(address, uri=True, timeout=BUSY_S, isolation_level=None)
    try:
        connection.execute("SELECT 1 FROM sqlite_master").fetchone()
    except sqlite3.OperationalError as error:
        connection.close()
        if "unable to open" not in str(error) or path.with_name(f"{path.name}-wal").exists():
            raise
        # nobody writes it, and nothing can be made beside it: a disk that is read-only, another user's folder
        connection = sqlite3.connect(f"{address}&immutable=1", uri=True, isolation_level=None)
    return connection


def version_of(connection: sqlite3.Connection, path: Path) -> int:
    """Return the version of a log's tables, 0 for an empty file. Raises `UserError` for another program's database."""
    empty = not connection.execute("SELECT 1 FROM sqlite_master").fetchone()  # first: it may be begun just now
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application == 0 and empty:
        return 0
    if application != schema.APPLICATION_ID:
        raise UserError(f"{path} must be an inspection log", "another program's database", "name another --log")
    if version > len(schema.MIGRATIONS):
        known = f"{path} must be an inspection log of version {len(schema.MIGRATIONS)} or older"
        raise UserError(known, f"version {version}", "use the newer release that wrote it, or name another --log")
    return int(version)


def _migrate(connection: sqlite3.Connection, version: int, before: Path | None) -> None:
    """Bring the tables from `version` to the present one, all or nothing."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        (version,) = connection.execute("PRAGMA user_version").fetchone()  # another process may just have done it
        for step in schema.MIGRATIONS[version:]:
            for statement in step.split(";"):
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {len(schema.MIGRATIONS)}")
        if version == 0 and before is not None:
            _carry(connection, before)
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _carry(connection: sqlite3.Connection, before: Path) -> None:
    with open_to_read(before) as older:
        for table, which in CARRIED.items():
            connection.execute(f"DELETE FROM {table}")
            for row in older.execute(f"SELECT * FROM {table}{which}") if has_table(older, table) else ():
                connection.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", row)


def has_table(connection: sqlite3.Connection, name: str) -> bool:
    """Whether a log has the table `name`: one of an older release lacks some."""
    known = "SELECT 1 FROM sqlite_master WHERE name = ?"
    return connection.execute(known, (name,)).fetchone() is not None
