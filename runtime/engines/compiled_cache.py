"""What a library has compiled, kept for the next start: in a folder that is this user's alone, found by hashes.

The name of an entry is the SHA-256 of everything that it depends on; an entry begins with the SHA-256 of its content.
Whatever is wrong here (no folder, another's folder, a full disk, damage) is work done again, never an error.
"""

import hashlib
import json
import mmap
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from runtime.common.files import sweep, write_bytes

VARIABLE = "CFLOW_CACHE"  # names the folder; empty: none
MOST_BYTES = 1 << 30  # of all entries together, the least recently used go first
LEFT_FREE = 1 << 30  # bytes of the disk that are never taken
SUFFIX = ".compiled"
HEADER = 64  # bytes in front of the content, its SHA-256 the first of them: so that it begins at a cache line


def entry_name(depends_on: Mapping[str, str]) -> str:
    """Return the name of the entry for what depends on all these values."""
    return hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest() + SUFFIX


def read_entry(name: str) -> memoryview | None:
    """Return the content of entry `name`, whole and unchanged, or None.

    It is in memory that can be written to and is this process's own: a disk that dies later does not matter.
    """
    folder = _folder(make=False)
    if folder is None:
        return None
    with suppress(OSError):
        handle = os.open(folder / name, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
        with os.fdopen(handle, "rb") as file:
            found = os.fstat(handle)
            if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_size > MOST_BYTES:
                return None
            whole = _read_whole(file, found.st_size)
        if whole is not None and hashlib.sha256(whole[HEADER:]).digest() == whole[: hashlib.sha256().digest_size]:
            os.utime(folder / name)  # used just now
            return whole[HEADER:]
    return None


def _read_whole(file: BinaryIO, size: int) -> memoryview | None:
    """Return what `file` holds, `size` bytes, or None where it holds less or nothing."""
    if size <= HEADER:
        return None
    whole, position = memoryview(mmap.mmap(-1, size)), 0  # zeroed by the system, not once more before it is read
    while position < size:
        read = file.readinto(whole[position:])  # type: ignore[attr-defined]  # every binary file has it
        if not read:
            return None
        position += read
    return whole


def write_entry(name: str, content: bytes) -> None:
    """Keep `content` as entry `name`, where there is room for it."""
    with suppress(OSError):
        folder = _folder(make=True)
        if folder is None or len(content) > MOST_BYTES // 2:
            return
        sweep(folder)
        _make_room(folder, len(content))
        disk = os.statvfs(folder)
        if disk.f_bavail * disk.f_frsize >= len(content) + LEFT_FREE:
            write_bytes(folder / name, hashlib.sha256(content).digest().ljust(HEADER, b"\0") + content)


def remove_entry(name: str) -> None:
    """Remove entry `name`, which the library did not take."""
    folder = _folder(make=False)
    if folder is not None:
        with suppress(OSError):
            (folder / name).unlink()


def _folder(make: bool) -> Path | None:
    """Return the folder, or None where there is none that this user alone can write to and read."""
    if not hasattr(os, "geteuid"):
        return None  # no owners to look at
    with suppress(OSError, RuntimeError):  # no home, or none that can be written to
        path = _place()
        if path is None:
            return None
        if make:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.mkdir(mode=0o700, exist_ok=True)
        found = path.lstat()
        own = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077
        return path if own else None
    return None


def _place() -> Path | None:
    if VARIABLE in os.environ:
        return Path(os.environ[VARIABLE]) if os.environ[VARIABLE] else None
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "cflow-edge"


def _make_room(folder: Path, size: int) -> None:
    """Remove the least recently used entries until `size` bytes more are within `MOST_BYTES`."""
    entries = sorted((path.stat().st_mtime, path.stat().st_size, path) for path in folder.glob(f"*{SUFFIX}"))
    total = sum(each for _, each, _ in entries) + size
    for _, each, path in entries:
        if total <= MOST_BYTES:
            break
        path.unlink(missing_ok=True)
        total -= each
