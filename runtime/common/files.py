"""Files are written whole or not at all, and named by what they hold."""

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from runtime.common.errors import UserError
from runtime.common.locks import is_at, try_lock

MARK = ".part-"  # in the names of unfinished files: `.cable.json.part-x7k2m9qa.json`
SECRET_BYTES = 1 << 16  # the most that a file with a password or token may hold
_UNFINISHED = re.compile(r"\..+\.part-[a-z0-9_]{8}(\.[^.]*)?")


@contextmanager
def whole_file(path: str | Path, mode: int = 0o666) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on leaving without an error it takes `path`'s place at once.

    On an error or Ctrl-C the temporary file goes and whatever stood at `path` stays as it was; what a killed process
    leaves, `sweep` removes. `mode`: who may read and write it, less what the umask forbids; until then its owner alone.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = _locked_file(path)
    try:
        yield temporary
        temporary.chmod(mode & ~_umask())
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    finally:
        os.close(handle)
        temporary.unlink(missing_ok=True)


def _locked_file(path: Path) -> tuple[int, Path]:
    """Make a temporary file beside `path`, whose lock says that its process lives: `sweep` leaves it alone."""
    while True:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}{MARK}", suffix=path.suffix, dir=path.parent)
        if try_lock(handle) is not False and is_at(handle, Path(name)):
            return handle, Path(name)
        os.close(handle)  # swept before it was locked


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def sweep(folder: Path, *, below: bool = False) -> list[Path]:
    """Remove from `folder` what `whole_file` began there in processes that were killed, and return it.

    With `below` from the folders within it too, where all of them are ours; links are not followed.
    """
    found: list[Path] = []
    for place, folders, names in os.walk(folder):
        found += (Path(place, name) for name in names if _UNFINISHED.fullmatch(name))
        if not below:
            folders.clear()
    return [path for path in found if _removed(path)]


def _removed(path: Path) -> bool:
    with suppress(OSError):  # gone by now, or another user's
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
        try:
            if try_lock(handle):  # nobody writes it; without locks nobody can tell
                path.unlink()
                return True
        finally:
            os.close(handle)
    return False


def sync_folder(folder: Path) -> None:
    """Let the names in `folder` outlive a power cut; without effect where folders cannot be opened."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def printable(name: str) -> str:
    """Return a file's name as text that any file can hold: bytes that are no UTF-8 become `\\udce9` and the like."""
    return name.encode("utf-8", "backslashreplace").decode()


def write_bytes(path: str | Path, data: bytes, mode: int = 0o666) -> None:
    """Write `data` whole or not at all; see `whole_file`."""
    with whole_file(path, mode) as temporary:
        temporary.write_bytes(data)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8, whole or not at all."""
    write_bytes(path, text.encode())


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_secret_file(path: Path) -> str:
    """Read a small file of text (UTF-8), such as one with a password; also a pipe, as a shell makes one.

    Raises `OSError` where it cannot be read and `UserError` for one that is no text, or larger than a secret is.
    """
    with path.open("rb") as file:
        data = file.read(SECRET_BYTES + 1)
    if len(data) > SECRET_BYTES:
        raise UserError(f"{path} must be a text of at most {SECRET_BYTES} bytes", "a larger file", "check the path")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise UserError(f"{path} must be a text file (UTF-8)", "other bytes") from None


def read_json(path: Path, largest: int, cure: str) -> Any:
    """Read a JSON file of at most `largest` bytes; a byte-order mark in front does no harm.

    Raises `UserError` naming the file, with the `cure`, where it is no regular file, larger (before it is read), no
    text, no JSON, or gives one name twice, of which JSON readers drop one without a word.
    """
    return read_hashed_json(path, largest, cure)[0]


def read_hashed_json(path: Path, largest: int, cure: str) -> tuple[Any, str]:
    """Read a JSON file as `read_json` does and return with it the SHA-256 of the very bytes that were read."""
    check_regular(path, f"{path} must be a JSON file")
    with path.open("rb") as file:
        data = file.read(largest + 1)
    if len(data) > largest:
        raise UserError(f"{path} must be JSON of at most {largest} bytes", "a larger file", cure)
    try:
        value = json.loads(data.decode("utf-8-sig"), object_pairs_hook=_each_once)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} must be JSON", str(error), cure) from None
    return value, hashlib.sha256(data).hexdigest()


def check_regular(path: Path, expected: str) -> None:
    """Raise `UserError` where `path` is there and no file: a pipe may be waited for for ever, a device has no end."""
    if path.exists() and not path.is_file():
        raise UserError(expected, "a folder" if path.is_dir() else "no regular file", "check the path")


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r} stands there twice")
    return values


def sha256_of(path: str | Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hex digits."""
    digest = hashlib.sha256()  # hashlib.file_digest needs Python 3.11
    with Path(path).open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def safe_name(text: str) -> str:
    """Return a file name for any `text`, another for another: what no file name holds becomes a short hash."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", text).strip("._")[-40:]
    if plain == text:
        return plain
    return f"{plain}-{hashlib.sha256(text.encode(errors='surrogatepass')).hexdigest()[:8]}"
