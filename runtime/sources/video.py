"""A video file: every frame, what of it cannot be trusted, and whether its end is the end."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from runtime.common.errors import UserError
from runtime.common.notices import say, worth_saying
from runtime.images.encoding import encoding_of_capture
from runtime.images.opencv import opencv
from runtime.images.pixels import Image8
from runtime.sources.frame import Frame, Source, blank
from runtime.sources.video_check import VideoCheck, packets_in

VIDEO_SUFFIXES = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm"})
# Containers that state how many frames they hold; of others OpenCV's number is a guess from the length. An AVI's may be
# one too many, and that of an MP4 in fragments is a guess too, of the sound's length where that is longer (seconds).
COUNTING = {".avi": 0.0, ".m4v": 0.5, ".mov": 0.5, ".mp4": 0.5}


class VideoFile(Source):
    """Every frame of a video file. Raises `UserError` if it is no video or holds no frame.

    With `checked`, frames that FFmpeg reports as damaged have a `fault`, and one that says so follows the last frame of
    a file that ends too early or is damaged elsewhere (`runtime.sources.video_check`).
    """

    live = False

    def __init__(self, path: Path, name: str = "", *, checked: bool = False, say: Callable[[str], None] = say) -> None:
        self.name = name or str(path)
        self._path = path
        self._checked = checked
        self._say = say
        self._unreadable = 0
        self._capture = opencv().VideoCapture(str(path))
        if not self._capture.isOpened():
            raise self._no_frames()
        self.encoding = encoding_of_capture(self._capture, "video")
        self._check: VideoCheck | None = None

    @property
    def unreadable(self) -> int:
        """Frames that are damaged, and one more for an end that comes too early."""
        return self._unreadable

    def _no_frames(self) -> UserError:
        return UserError(f"{self._path} must be a video with frames", "none that can be decoded", "try to play it")

    def __iter__(self) -> Iterator[Frame]:
        self._close_check()
        self._check = VideoCheck(self._path) if self._checked else None
        index, last_ms = 0, 0.0
        picture = None
        for picture in self._pictures():
            last_ms = self._capture.get(opencv().CAP_PROP_POS_MSEC)
            fault = self._check.fault(index) if self._check else ""
            yield self._frame(picture, index, fault)
            index += 1
        if picture is None:
            raise self._no_frames()
        if self._check and (why := self._early_end(index, last_ms) or self._check.end()):
            yield self._frame(blank(picture.shape), index, f"the video is not whole ({why})")

    def _pictures(self) -> Iterator[Image8]:
        while True:
            ok, bgr = self._capture.read()
            if not ok:
                return
            yield opencv().cvtColor(bgr, opencv().COLOR_BGR2RGB)

    def _frame(self, image: Image8, index: int, fault: str) -> Frame:
        frame = Frame(image, f"{self._path.stem}_{index:06d}", index, time.time(), fault)
        if fault:
            self._unreadable += 1
            if worth_saying(self._unreadable):
                self._say(f"{self.name}: no verdict on {frame.name}: {fault}")
        return frame

    def _early_end(self, read: int, last_ms: float) -> str:
        """Say how many frames are missing at the end; nothing where the container does not say how many there are."""
        cv2 = opencv()
        stated, fps = (self._capture.get(what) for what in (cv2.CAP_PROP_FRAME_COUNT, cv2.CAP_PROP_FPS))
        slack_s = COUNTING.get(self._path.suffix.lower())
        if slack_s is None or not (0 < stated < 1e9 and fps > 0):
            return ""
        missing_s = stated / fps - last_ms / 1e3 - 2 / fps if last_ms else (stated - read) / fps
        if read >= stated - 1 or missing_s <= slack_s or packets_in(str(self._path)) >= stated - 1:
            return ""
        return f"{read} of {stated:.0f} frames can be read"

    def close(self) -> None:
        """Close the file."""
        self._capture.release()
        self._close_check()

    def _close_check(self) -> None:
        if self._check is not None:
            self._check.close()
