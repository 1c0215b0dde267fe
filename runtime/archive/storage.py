"""Where an archive's bytes lie: files by their path, all else by a URL through fsspec."""

import errno
import io
import time
from pathlib import Path
from typing import Any, BinaryIO

from runtime.archive.items import Item
from runtime.common.addresses import is_url, without_secrets
from runtime.common.errors import UserError
from runtime.images.size_limit import check_file_size

INSTALL = "pip install 'cflow-edge[archive]'"
CURE = "check address, network and keys"
PAUSES_S = (0.5, 2.0, 8.0)  # before another try
GONE = (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG)


class Store:
    """The file system that an archive lies in; `root` is the archive's own path there.

    Raises `UserError` for a URL where fsspec, or what it needs for that scheme, is not installed.
    """

    def __init__(self, archive: str) -> None:
        self.remote = is_url(archive)
        self.shown = without_secrets(archive) if self.remote else archive
        self._filesystem: Any = None
        self.root = archive
        if self.remote:
            self._filesystem, self.root = _filesystem_of(archive)

    def open(self, place: str) -> BinaryIO:
        """Open a file for reading, with `seek`. Raises what the library behind it raises."""
        if self._filesystem is None:
            return Path(place).open("rb")
        file: BinaryIO = self._filesystem.open(place, "rb")
        return file

    def find(self) -> list[str]:
        """Return all files below a URL. Raises `UserError` where they cannot be listed."""
        assert self._filesystem is not None
        try:
            found: list[str] = self._filesystem.find(self.root)
        except Exception as error:  # whatever the library behind it raises
            raise UserError(f"{self.shown} must be listed", words(error), CURE) from None
        return found

    def fetch(self, item: Item) -> bytes:
        """Return the bytes of an image; what fails for a moment (a network, a server) is tried again.

        Raises `UserError` where there are none, fewer than there should be, or too many for this machine's memory.
        """
        for pause_s in (*PAUSES_S, None):
            found = self._tried(item)
            if isinstance(found, bytes):
                return found
            if pause_s is None or _is_gone(found):
                raise UserError(f"{item.name} must be there to read", words(found))
            time.sleep(pause_s)
        raise AssertionError("the last try returns or raises")

    def _tried(self, item: Item) -> bytes | Exception:
        try:
            return self._fetch(item)
        except UserError:
            raise
        except Exception as error:  # each library behind fsspec has its own
            return error

    def _fetch(self, item: Item) -> bytes:
        if item.size is not None:
            check_file_size(item.size)
        data = _from_file(item) if self._filesystem is None else self._from_url(self._filesystem, item)
        if item.size is not None and len(data) != item.size:
            found = f"{len(data)} of {item.size} bytes"
            raise UserError(f"{item.name} must be there as a whole", found, "copy the archive again")
        return data

    @staticmethod
    def _from_url(filesystem: Any, item: Item) -> bytes:
        if item.size is None:
            check_file_size(int(filesystem.size(item.place) or 0))
            return bytes(filesystem.cat_file(item.place))
        return bytes(filesystem.cat_file(item.place, start=item.offset, end=item.offset + item.size))


def _filesystem_of(url: str) -> tuple[Any, str]:
    shown = without_secrets(url)
    try:
        from fsspec.core import url_to_fs
    except ModuleNotFoundError:
        raise UserError(f"{shown} needs fsspec", "none", INSTALL) from None
    try:
        filesystem, path = url_to_fs(url)
    except (ImportError, ValueError) as error:  # the library of this scheme; a scheme that nobody knows
        raise UserError(f"{shown} must be an address that fsspec can open", str(error), INSTALL) from None
    except Exception as error:  # whatever the library behind it raises
        raise UserError(f"{shown} must open", words(error), CURE) from None
    return filesystem, str(path)


def _from_file(item: Item) -> bytes:
    path = Path(item.place)
    if path.exists() and not path.is_file():  # reading a pipe may wait for ever
        raise UserError(f"{item.name} must be an image file", "no regular file", "check the path")
    with path.open("rb") as file:
        if item.size is None:
            check_file_size(file.seek(0, io.SEEK_END))
        file.seek(item.offset)
        return file.read(-1 if item.size is None else item.size)


def _is_gone(error: Exception) -> bool:
    return isinstance(error, FileNotFoundError | PermissionError) or getattr(error, "errno", None) in GONE


def words(error: Exception) -> str:
    """Return what an error of any library says, in words."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
