"""A watched folder: new images are judged as they arrive, whole, each once.

Polling, because a network share tells nobody of new files. A file is taken for whole once its size and time stayed
the same for `settle_s`. What was judged is known by name and content, so that a file whose time is set after
copying, or that is renamed inside the folder, is not judged again, and one that is overwritten is. Memory holds an
entry for every image in the folder and for nothing else.
"""

import contextlib
import hashlib
import io
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from runtime.common.errors import UserError
from runtime.common.notices import say, worth_saying
from runtime.images.encoding import encoding_of
from runtime.images.folders import IMAGE_SUFFIXES, natural_key
from runtime.images.pixels import Image8
from runtime.images.preprocess import PLAIN, ReadOptions, read_image
from runtime.images.size_limit import check_file_size
from runtime.sources.backoff import SETTLE_S
from runtime.sources.frame import LOST, Frame, Source, blank
from runtime.sources.naming import live_frame_name

POLL_S = 0.25
RETRY_S = 5.0  # after the system refused to read a file
SHARE_OF_TIME = 0.2  # spent on looking into a folder so large that a look takes long


@dataclass(frozen=True)
class WatchOptions:
    """How a folder is watched: a look every `poll_s` seconds, a file unchanged for `settle_s` is whole.

    `existing`: images that are there at the start are judged too.
    """

    existing: bool = True
    poll_s: float = POLL_S
    settle_s: float = SETTLE_S
    say: Callable[[str], None] = say


@dataclass(frozen=True)
class Stamp:
    """What the file system says of a file; equal stamps, equal content."""

    inode: int
    size: int
    mtime_ns: int


@dataclass
class WatchedFile:
    """One name in the folder: its stamp since `since_s` (monotonic), and the content judged last (its digest)."""

    stamp: Stamp
    since_s: float
    done: bool = False  # this stamp needs nothing more
    counted: bool = False  # among the unreadable, with this stamp
    digest: bytes = b""
    judged: bool = False  # with any content


class WatchedFolder(Source):
    """Images in `folder` as they arrive, until closed. Raises `UserError` where it is no folder at the start.

    A file that is no whole image is a frame with a fault, and judged again when it changes; one that the system does
    not let read is passed over, counted and tried again. A folder that goes (a network share) is waited for.
    """

    live = False
    uniform = False

    def __init__(
        self, folder: Path, options: WatchOptions | None = None, read: ReadOptions = PLAIN, name: str = ""
    ) -> None:
        if not folder.is_dir():
            raise UserError(f"{folder} must be a folder", "none", "create it, or check the path")
        self.name = name or str(folder)
        self._folder = folder
        self._options = options or WatchOptions()
        self._read_options = read
        self._entries: dict[str, WatchedFile] = {}
        self._dropped = self._unreadable = self._reconnects = self._index = 0
        self._lost_since: datetime | None = None
        self._stop = threading.Event()
        self._device = folder.stat().st_dev
        if not self._options.existing:
            for name, stamp in self._list().items():
                self._entries[name] = WatchedFile(stamp, time.monotonic(), done=True)

    @property
    def dropped(self) -> int:
        """Files that were seen whole and went before they could be read."""
        return self._dropped

    @property
    def unreadable(self) -> int:
        """Attempts at files that are no whole images."""
        return self._unreadable

    @property
    def reconnects(self) -> int:
        """How often the folder came back."""
        return self._reconnects

    @property
    def state(self) -> str:
        """One of "live", "reconnecting since <UTC> (why)", "ended"."""
        if self._stop.is_set():
            return "ended"
        since = self._lost_since
        return f"{LOST} since {since.isoformat(timespec='seconds')} (no such folder)" if since else "live"

    def __iter__(self) -> Iterator[Frame]:
        while not self._stop.is_set():
            began = time.monotonic()
            names = self._look()
            took_s = time.monotonic() - began
            for name in names:
                if self._stop.is_set():
                    return
                frame = self._read(name)
                if frame is not None:
                    yield frame
            self._stop.wait(max(self._options.poll_s, took_s * (1 / SHARE_OF_TIME - 1)))

    def close(self) -> None:
        """Stop watching, from any thread."""
        self._stop.set()

    def _look(self) -> list[str]:
        """Bring the entries up to date and return what is whole and not judged, in the order of its time."""
        try:
            found, device = self._list(), self._folder.stat().st_dev
        except OSError as error:
            self._lose(error)
            return []
        self._come_back()
        gone = {name: self._entries[name] for name in self._entries.keys() - found.keys()}
        if found or device == self._device:  # else a share is not mounted, and what it holds is only out of sight
            for name in gone:
                del self._entries[name]
            self._device = device
        now = time.monotonic()
        self._note(found, {entry.stamp: entry for entry in gone.values()}, now)
        ready = [
            name
            for name in found
            if not self._entries[name].done and now - self._entries[name].since_s >= self._options.settle_s
        ]
        return sorted(ready, key=lambda name: (found[name].mtime_ns, natural_key(Path(name))))

    def _list(self) -> dict[str, Stamp]:
        """Return the images that are directly in the folder. Raises `OSError` if the folder is gone."""
        found = {}
        with os.scandir(self._folder) as listing:
            for item in listing:
                if Path(item.name).suffix.lower() not in IMAGE_SUFFIXES or item.name.startswith("."):
                    continue
                with contextlib.suppress(FileNotFoundError):  # gone since the listing
                    status = item.stat()
                    if stat.S_ISREG(status.st_mode):
                        found[item.name] = Stamp(status.st_ino, status.st_size, status.st_mtime_ns)
        return found

    def _note(self, found: dict[str, Stamp], gone: dict[Stamp, WatchedFile], now: float) -> None:
        """Enter new names and new stamps; a new name with the stamp of one that went is that file, renamed."""
        for name, stamp in found.items():
            entry = self._entries.get(name)
            if entry is None:
                self._entries[name] = gone.pop(stamp) if stamp in gone else WatchedFile(stamp, now)
            elif entry.stamp != stamp:
                self._entries[name] = WatchedFile(stamp, now, digest=entry.digest, judged=entry.judged)

    def _read(self, name: str) -> Frame | None:
        """Return a file's frame; None if there is nothing to judge, and its entry then says why or when again."""
        entry = self._entries[name]
        path = self._folder / name
        try:
            check_file_size(entry.stamp.size)
            data = path.read_bytes()
            status = path.stat()
        except FileNotFoundError:
            self._dropped += 1
            self._say_some(self._dropped, f"{path} went before it could be read")
            return None
        except OSError as error:
            entry.since_s = time.monotonic() + RETRY_S
            self._count_unreadable(entry, f"passed over: {path} cannot be read ({error.strerror})")
            return None
        except (UserError, MemoryError) as error:
            entry.done = True
            return self._frame(entry, name, blank(), f"{path}: {error or 'it must fit into memory'}")
        if Stamp(status.st_ino, status.st_size, status.st_mtime_ns) != entry.stamp:
            return None  # written to since; the next look sees it
        entry.done = True
        digest = hashlib.blake2b(data, digest_size=16).digest()
        if digest == entry.digest:
            return None
        try:
            image = read_image(path, self._read_options, io.BytesIO(data))
        except UserError as error:
            return self._frame(entry, name, blank(), str(error))
        entry.digest = digest
        self.encoding = encoding_of(io.BytesIO(data))
        return self._frame(entry, name, image, "")

    def _frame(self, entry: WatchedFile, name: str, image: Image8, fault: str) -> Frame:
        """Return a file's next frame; `fault` says why it has no verdict."""
        if fault:
            self._count_unreadable(entry, f"no verdict: {fault}")
        said = live_frame_name(name, self._index) if entry.judged else name
        entry.judged = entry.judged or not fault
        frame = Frame(image, said, self._index, time.time(), fault)
        self._index += 1
        return frame

    def _count_unreadable(self, entry: WatchedFile, why: str) -> None:
        if not entry.counted:
            entry.counted = True
            self._unreadable += 1
            self._say_some(self._unreadable, why)

    def _say_some(self, count: int, line: str) -> None:
        if worth_saying(count):
            self._options.say(f"{line} ({count} so far)" if count > 1 else line)

    def _lose(self, error: OSError) -> None:
        if self._lost_since is None:
            self._lost_since = datetime.now(timezone.utc)
            self._options.say(f"{self.name} is lost ({error.strerror}); looking until it is back")

    def _come_back(self) -> None:
        if self._lost_since is not None:
            away = datetime.now(timezone.utc) - self._lost_since
            self._lost_since = None
            self._reconnects += 1
            self._options.say(f"{self.name} is back after {away.total_seconds():.1f} s")
