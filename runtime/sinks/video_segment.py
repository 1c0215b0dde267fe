"""One segment of a video: a hidden file that can be played up to where it ends, until it is whole and gets its name."""

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.images.opencv import opencv
from runtime.images.pixels import Image8
from runtime.sinks.disk_cap import DiskCap

CODECS = {".mp4": "mp4v", ".avi": "MJPG", ".mkv": "mp4v"}  # what OpenCV's own FFmpeg can encode
# FFmpeg writes an MP4 of this name in fragments, each with its own index; one named .mp4 has a single index at its end,
# and cannot be played at all without it. The others can be played as far as they go.
FRAGMENTED = {".mp4": ".ismv"}
RESERVE_BYTES = 64 << 20  # a segment ends while this much is free: its index is written last and must fit
SMALLEST_BYTES = 250_000  # of a segment; what FFmpeg writes at once is 262144 bytes


@dataclass(frozen=True)
class VideoOptions:
    """A segment ends after `segment_s` seconds of video or `segment_bytes`; `cap_bytes` bounds all segments.

    `sources` have a segment open each, and share the cap.
    """

    fps: float = 25.0
    segment_s: float = 600.0
    segment_bytes: int = 500_000_000
    cap_bytes: int = 2_000_000_000
    reserve_bytes: int = RESERVE_BYTES
    sources: int = 1

    @property
    def most_bytes(self) -> int:
        """What ends a segment: its limit, or a quarter of its part of the cap, so that there is an older one to go."""
        return min(self.segment_bytes, self.cap_bytes // (4 * self.sources))


class Segment:
    """One file, hidden by a leading dot until it is whole; the disk cap counts it from its first frame on."""

    def __init__(self, path: Path, first: Image8, options: VideoOptions, cap: DiskCap) -> None:
        """Begin one. Raises `OSError` for a full disk or a folder that cannot be written."""
        self.size = first.shape[:2]
        self._path, self._options, self._cap = path, options, cap
        self._hidden = hidden_name(path)
        self._frames = 0
        self._full = False
        self._was_low = False  # whether the disk was ever so full that something may be missing
        path.parent.mkdir(parents=True, exist_ok=True)
        if self._free_bytes() < options.reserve_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        cap.expect(path.name, self._hidden, path)
        cv2 = opencv()
        codec = cv2.VideoWriter_fourcc(*CODECS[path.suffix.lower()])
        self._writer: Any = cv2.VideoWriter(str(self._hidden), codec, options.fps, first.shape[1::-1])
        if not self._writer.isOpened():
            self._remove()
            raise OSError(errno.EIO, "OpenCV cannot write this video", str(path))
        cap.held.add(path.name)

    def _free_bytes(self) -> int:
        return shutil.disk_usage(self._path.parent).free

    def _remove(self) -> None:
        self._hidden.unlink(missing_ok=True)
        self._cap.drop(self._path.name, self._hidden)
        self._cap.drop(self._path.name, self._path)

    def full(self) -> bool:
        """Whether the next frame belongs into the next segment."""
        return self._full or self._frames >= self._options.segment_s * self._options.fps

    def write(self, picture: Image8) -> None:
        """Append one frame, and make room for it."""
        self._writer.write(opencv().cvtColor(picture, opencv().COLOR_RGB2BGR))
        self._frames += 1
        try:
            size = self._hidden.stat().st_size
            self._was_low |= self._free_bytes() < self._options.reserve_bytes
            self._full = size >= self._options.most_bytes or self._was_low
            self._cap.add(self._path.name, self._hidden, growing=True)
        except OSError:  # the cap is too small even for the open segments, or somebody has removed this one
            self._full = True

    def close(self) -> int:
        """Finish the file and give it its name; return how many frames it should hold and does not.

        OpenCV does not say when it cannot write: the disk was full. What a file says of its own length holds only
        where everything was written, so there the frames are played. Raises `OSError` if the file cannot be renamed.
        """
        self._writer.release()
        self._cap.held.discard(self._path.name)
        found = self._found() if self._hidden.exists() else 0
        if not found:
            self._remove()
            return self._frames
        _name(self._hidden, self._path, self._cap)
        return max(0, self._frames - found)

    def _found(self) -> int:
        said = _frames_said(self._hidden)
        low = self._was_low or self._free_bytes() < self._options.reserve_bytes
        return said if said == self._frames and not low else _frames_played(self._hidden)


def hidden_name(path: Path) -> Path:
    """Return the name of the segment `path` while it is being written."""
    suffix = FRAGMENTED.get(path.suffix.lower(), path.suffix)
    return path.with_name(f".{path.stem}{suffix}")


def numbered(stem: str, suffix: str) -> "re.Pattern[str]":
    """Return what matches the names of segments, whole or not, with their number as its group."""
    suffixes = "|".join(map(re.escape, {suffix, FRAGMENTED.get(suffix.lower(), suffix)}))
    return re.compile(rf"\.?{re.escape(stem)}_(\d{{6,}})(?:{suffixes})")


def keep_leftovers(cap: DiskCap) -> list[Path]:
    """Give the segments of a killed run their names, and return them; those without a frame that can be played go.

    They are those of `cap`'s ledger: another process may be writing another video in the same folder.
    """
    kept = []
    for group, hidden in cap.unfinished():
        path = cap.folder / group
        if hidden != hidden_name(path) or path.exists():
            continue
        if not _can_be_played(hidden):
            hidden.unlink()
            cap.drop(group, hidden)
            continue
        with suppress(OSError):  # a full disk: it stays hidden until the next start
            cap.expect(group, path)
            _name(hidden, path, cap)
            kept.append(path)
    return kept


def _name(hidden: Path, path: Path, cap: DiskCap) -> None:
    """Give a hidden segment its name, which `cap` expects already. Raises `OSError` if it cannot be renamed."""
    hidden.replace(path)
    cap.drop(path.name, hidden)
    with suppress(OSError):  # a full disk or cap: it is entered already, by its name
        cap.add(path.name, path)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a video for reading; one that cannot be read has no frames."""
    capture = opencv().VideoCapture(str(path))
    try:
        yield capture
    finally:
        capture.release()


def _frames_said(path: Path) -> int:
    with _opened(path) as capture:
        return int(capture.get(opencv().CAP_PROP_FRAME_COUNT))


def _frames_played(path: Path) -> int:
    count = 0
    with _opened(path) as capture:
        while capture.read()[0]:
            count += 1
    return count


def _can_be_played(path: Path) -> bool:
    with _opened(path) as capture:
        return bool(capture.read()[0])
