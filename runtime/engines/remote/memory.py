"""Frames in memory that a server on the same machine opens: one region for each request that is under way.

A region is a file in /dev/shm that its process has locked; what a killed process left is removed at the next start.
"""

import mmap
import os
import secrets
from contextlib import suppress
from pathlib import Path

import numpy as np

from runtime.common.closing import Closing
from runtime.common.locks import is_at, try_lock
from runtime.engines.session import Frames

PLACE = Path("/dev/shm")
PREFIX = "cflow-edge-frames-"


class Region(Closing):
    """`size` bytes of memory under a name that nobody can guess. Raises `OSError` where there is no room or place.

    Its owner alone may open it: the server must be of the same user, or root.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._handle, self._path = _locked()
        try:
            os.posix_fallocate(self._handle, 0, size)  # now: a full memory would end the process at a write
            self._memory = mmap.mmap(self._handle, size)
        except BaseException:
            self._remove()
            raise
        self._closed = False

    @property
    def name(self) -> str:
        """What it is called at the server."""
        return self._path.name

    @property
    def key(self) -> str:
        """What it is called at the system."""
        return f"/{self._path.name}"

    def put(self, frames: Frames) -> None:
        """Copy frames to its begin; they must fit."""
        np.frombuffer(self._memory, np.uint8, frames.size).reshape(frames.shape)[...] = frames

    def content(self, shape: tuple[int, ...]) -> Frames:
        """Return a copy of the frames of that shape at its begin."""
        frames: Frames = np.frombuffer(self._memory, np.uint8, int(np.prod(shape))).reshape(shape).copy()
        return frames

    def close(self) -> None:
        """Give the memory back; a second call does nothing."""
        if not self._closed:
            self._closed = True
            with suppress(BufferError):
                self._memory.close()
            self._remove()

    def _remove(self) -> None:
        self._path.unlink(missing_ok=True)
        os.close(self._handle)


def _locked() -> tuple[int, Path]:
    if not PLACE.is_dir():
        raise FileNotFoundError(f"no {PLACE}")
    while True:
        path = PLACE / f"{PREFIX}{os.getpid()}-{secrets.token_hex(16)}"
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        if try_lock(handle) is not False and is_at(handle, path):
            return handle, path
        os.close(handle)  # swept before it was locked


def sweep() -> None:
    """Remove the regions of processes that have ended without it."""
    if not PLACE.is_dir():
        return
    for path in PLACE.glob(f"{PREFIX}*"):
        with suppress(OSError):  # another user's, or gone by now
            handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
            try:
                if try_lock(handle):
                    path.unlink()
            finally:
                os.close(handle)


def left_behind(regions: dict[str, str]) -> list[str]:
    """Return those of a server's regions, by name, whose process has ended: their files are no longer there."""
    return [name for name in regions if name.startswith(PREFIX) and not (PLACE / name).exists()]
