"""Overlays as a video, cut into segments that are whole files: `line_000001.mp4`, `line_000002.mp4`, ..."""

import contextlib
from pathlib import Path

import numpy as np

from runtime.common.closing import Closing
from runtime.common.errors import UserError
from runtime.common.files import safe_name
from runtime.common.notices import say
from runtime.images.pixels import Image8
from runtime.sinks.disk_cap import DiskCap
from runtime.sinks.judgement import Judgement
from runtime.sinks.queueing import NotKept, Queueing
from runtime.sinks.video_segment import CODECS, SMALLEST_BYTES, Segment, VideoOptions, keep_leftovers, numbered


class VideoSink(Closing):
    """Writes overlays beside `path`, a segment at a time, the oldest removed once all are over the cap.

    Every judged frame is one frame of the video, at a constant `fps`. A segment gets its name when it is whole, or
    when the next run finds what a killed one left; a frame of another size begins the next. Each of several sources
    has segments of its own. `maximum` is the largest score. Raises `UserError` for another suffix than .mp4, .avi or
    .mkv, and for a cap that is too small for so many sources.
    """

    queueing = Queueing(capacity=32, keep="oldest")

    def __init__(self, path: Path, maximum: float, options: VideoOptions | None = None) -> None:
        if path.suffix.lower() not in CODECS:
            raise UserError(f"a video must end in one of {', '.join(CODECS)}", repr(path.name), "rename it")
        self.name = f"video {path}"
        self._path = path
        self._maximum = maximum
        self._options = options or VideoOptions()
        if self._options.cap_bytes < 4 * SMALLEST_BYTES * self._options.sources:
            sources = f"{self._options.sources} sources" if self._options.sources > 1 else "one source"
            found = f"{self._options.cap_bytes} bytes for {sources}"
            raise UserError("the --disk-cap of a video must be at least 1MB for each source", found)
        self._cap = DiskCap(path.parent, self._options.cap_bytes, f"video-{safe_name(path.name)}")
        for left in keep_leftovers(self._cap):
            say(f"{left} is of a run that was killed, and can be played up to that")
        self._segments: dict[str, Segment] = {}  # the open one of each source
        self._missing = 0  # frames that were written and are not there, not told yet

    def write(self, judgement: Judgement) -> None:
        """Append one overlay. Raises `OSError` for a full disk or a segment that cannot be written."""
        picture = _even(judgement.overlay(self._maximum))
        source = judgement.source if self._options.sources > 1 else ""
        segment = self._segments.get(source)
        if segment is not None and (segment.full() or segment.size != picture.shape[:2]):
            self._end(source)
            segment = None
        if segment is None:
            segment = Segment(self._next_path(source), picture, self._options, self._cap)
            self._segments[source] = segment
        segment.write(picture)
        self._tell_missing()

    def _next_path(self, source: str) -> Path:
        stem = f"{self._path.stem}_{safe_name(source)}" if source else self._path.stem
        names = self._path.parent.iterdir() if self._path.parent.exists() else ()
        found = (numbered(stem, self._path.suffix).fullmatch(path.name) for path in names)
        number = max((int(match[1]) for match in found if match), default=0) + 1
        return self._path.with_name(f"{stem}_{number:06d}{self._path.suffix}")

    def _end(self, source: str) -> None:
        self._missing += self._segments.pop(source).close()

    def _tell_missing(self) -> None:
        missing, self._missing = self._missing, 0
        if missing:
            raise NotKept(missing, f"{missing} frames are missing: the disk was full, or their file is gone", self.name)

    def close(self) -> None:
        """Finish the segments; a second call does nothing."""
        with contextlib.ExitStack() as stack:  # all of them, though one may fail
            stack.callback(self._tell_missing)
            for source in list(self._segments):
                stack.callback(self._end, source)


def _even(picture: Image8) -> Image8:
    """Return `picture` with even sides, as video codecs want them: the last row and column twice where odd."""
    height, width = picture.shape[:2]
    if not (height % 2 or width % 2):
        return picture
    return np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
