"""One writer at a time: of an engine, of an output folder. A lock ends with its process, also by kill -9."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from runtime.common.errors import UserError

try:
    import fcntl
except ImportError:  # no POSIX: without locks, as before there were any
    fcntl = None  # type: ignore[assignment]

POLL_S = 0.05


def try_lock(handle: int) -> bool | None:
    """Lock an open file for this process; False where another one has it, None where there are no locks."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # some network file systems
        return None
    return True


def is_at(file: int | os.stat_result, path: Path) -> bool:
    """Return whether a file, open or known by its `stat`, is the one that stands at `path`."""
    try:
        known = os.fstat(file) if isinstance(file, int) else file
        return os.path.samestat(known, path.stat())
    except OSError:
        return False


@contextmanager
def one_writer(path: Path, what: str, cure: str, patience_s: float = 0.0) -> Iterator[None]:
    """Be the only process that writes `path` while open, by a hidden lock file beside it that goes on leaving.

    Raises `UserError` where another one still writes `what` after `patience_s` seconds; `cure` says what to do then.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_name(f".{path.name}.lock")
    until = time.monotonic() + patience_s
    while (handle := _taken(lock)) is None:
        if time.monotonic() >= until:
            raise UserError(f"{what} must have one writer at a time", f"process {_owner(lock)} writing it", cure)
        time.sleep(POLL_S)
    try:
        yield
    finally:
        with suppress(OSError):
            lock.unlink()  # before it is let go: who waits sees that its file is gone, and makes a new one
        os.close(handle)


def _taken(lock: Path) -> int | None:
    """Return the handle of the locked file, None where another process has it."""
    while True:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        if try_lock(handle) is False:
            os.close(handle)
            return None
        if is_at(handle, lock):
            os.ftruncate(handle, 0)
            with suppress(OSError):  # a full disk must not forbid what needs no space
                os.write(handle, str(os.getpid()).encode())
            return handle
        os.close(handle)  # its last owner has removed it


def _owner(lock: Path) -> str:
    with suppress(OSError):
        return lock.read_text(encoding="ascii", errors="replace")[:12] or "another"
    return "another"
