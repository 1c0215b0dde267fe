"""Overlays as a video, cut into segments that are whole files: `line_000001.mp4`, `line_000002.mp4`, ..."""

import contextlib
import errno
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from runtime.common.closing import Closing
from runtime.common.errors import UserError
from runtime.common.files import safe_name
from runtime.images.opencv import opencv
from runtime.images.overlay import draw
from runtime.images.pixels import Image8
from runtime.sinks.disk_cap import DiskCap
from runtime.sinks.judgement import Judgement
from runtime.sinks.queueing import Queueing

CODECS = {".mp4": "mp4v", ".avi": "MJPG", ".mkv": "mp4v"}  # what OpenCV's own FFmpeg can encode
LOOK_EVERY = 25  # frames between two looks at the segment's size and the disk's free space
RESERVE_BYTES = 64 << 20  # a segment ends while this much is free: its index is written last and must fit


@dataclass(frozen=True)
class VideoOptions:
    """A segment ends after `segment_s` seconds of video or `segment_bytes`; `cap_bytes` bounds all segments."""

    fps: float = 25.0
    segment_s: float = 600.0
    segment_bytes: int = 500_000_000
    cap_bytes: int = 2_000_000_000
    reserve_bytes: int = RESERVE_BYTES

    @property
    def most_bytes(self) -> int:
        """What ends a segment: its own limit, or a quarter of the cap, so that there is always an older one to go."""
        return min(self.segment_bytes, self.cap_bytes // 4)


class VideoSink(Closing):
    """Writes overlays beside `path`, a segment at a time, the oldest removed once all are over the cap.

    Every judged frame is one frame of the video, at a constant `fps`. A segment gets its name when it is whole; a
    frame of another size begins the next. Each of several sources has segments of its own. `maximum` is the
    largest score. Raises `UserError` for another suffix than .mp4, .avi or .mkv.
    """

    queueing = Queueing(capacity=32, keep="oldest")

    def __init__(
        self, path: Path, maximum: float, options: VideoOptions | None = None, by_source: bool = False
    ) -> None:
        if path.suffix.lower() not in CODECS:
            raise UserError(f"a video must end in one of {', '.join(CODECS)}", repr(path.name), "rename it")
        self.name = f"video {path}"
        self._path = path
        self._maximum = maximum
        self._options = options or VideoOptions()
        self._by_source = by_source
        self._cap = DiskCap(path.parent, self._options.cap_bytes, f"video-{safe_name(path.name)}")
        self._segments: dict[str, _Segment] = {}  # the open one of each source

    def write(self, judgement: Judgement) -> None:
        """Append one overlay. Raises `OSError` for a full disk or a segment that cannot be written."""
        picture = _even(draw(judgement.frame.image, judgement.result, self._maximum))
        source = judgement.source if self._by_source else ""
        segment = self._segments.get(source)
        if segment is not None and (segment.full() or segment.size != picture.shape[:2]):
            self._end(source)
            segment = None
        if segment is None:
            segment = self._segments[source] = _Segment(self._next_path(source), picture, self._options, self._cap)
        segment.write(picture)

    def _next_path(self, source: str) -> Path:
        stem = f"{self._path.stem}_{safe_name(source)}" if source else self._path.stem
        pattern = re.compile(re.escape(stem) + r"_(\d{6,})" + re.escape(self._path.suffix))
        found = (pattern.fullmatch(path.name.removeprefix(".")) for path in self._path.parent.iterdir())
        number = max((int(match[1]) for match in found if match), default=0) + 1
        return self._path.with_name(f"{stem}_{number:06d}{self._path.suffix}")

    def _end(self, source: str) -> None:
        self._segments.pop(source).close()

    def close(self) -> None:
        """Finish the segments; a second call does nothing."""
        with contextlib.ExitStack() as stack:  # all of them, though one may fail
            for source in list(self._segments):
                stack.callback(self._end, source)


class _Segment:
    """One file, hidden by a leading dot until it is whole."""

    def __init__(self, path: Path, first: Image8, options: VideoOptions, cap: DiskCap) -> None:
        self.size = first.shape[:2]
        self._path, self._options, self._cap = path, options, cap
        self._hidden = path.with_name(f".{path.name}")
        self._frames = 0
        self._full = False
        if self._free_bytes() < options.reserve_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        cv2 = opencv()
        codec = cv2.VideoWriter_fourcc(*CODECS[path.suffix.lower()])
        self._writer: Any = cv2.VideoWriter(str(self._hidden), codec, options.fps, first.shape[1::-1])
        if not self._writer.isOpened():
            self._hidden.unlink(missing_ok=True)
            raise OSError(errno.EIO, "OpenCV cannot write this video", str(path))
        cap.held.add(path.name)
        cap.add(path.name, self._hidden, growing=True)  # found again, and removable, after a power cut

    def _free_bytes(self) -> int:
        return shutil.disk_usage(self._path.parent).free

    def full(self) -> bool:
        """Whether the next frame belongs into the next segment."""
        return self._full or self._frames >= self._options.segment_s * self._options.fps

    def write(self, picture: Image8) -> None:
        """Append one frame."""
        self._writer.write(opencv().cvtColor(picture, opencv().COLOR_RGB2BGR))
        self._frames += 1
        if self._frames % LOOK_EVERY == 0:
            size = self._hidden.stat().st_size
            self._full = size >= self._options.most_bytes or self._free_bytes() < self._options.reserve_bytes
            self._cap.add(self._path.name, self._hidden, growing=True)

    def close(self) -> None:
        """Finish the file, see that it holds every frame, and give it its name.

        Raises `OSError` if frames are missing, which OpenCV does not say when it writes: the disk was full.
        """
        self._writer.release()
        self._cap.held.discard(self._path.name)
        found = _frames_in(self._hidden)
        if found:
            self._hidden.replace(self._path)
            self._cap.drop(self._path.name, self._hidden)
            self._cap.add(self._path.name, self._path)
        else:
            self._hidden.unlink(missing_ok=True)
            self._cap.drop(self._path.name, self._hidden)
        if found != self._frames:
            raise OSError(errno.EIO, f"the video holds {found} of {self._frames} frames", str(self._path))


def _frames_in(path: Path) -> int:
    capture = opencv().VideoCapture(str(path))
    try:
        return int(capture.get(opencv().CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
    finally:
        capture.release()


def _even(picture: Image8) -> Image8:
    """Return `picture` with even sides, as video codecs want them: the last row and column twice where odd."""
    height, width = picture.shape[:2]
    if not (height % 2 or width % 2):
        return picture
    return np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
