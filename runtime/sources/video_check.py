"""Whether a video file is whole: what FFmpeg's own log says, which OpenCV prints and never returns.

A second process decodes the file beside the first, by one thread, so that each error line stands right before the frame
that it spoils. Of files with 64 random bytes at a random place it finds (OpenCV 5.0.0; 8 of each codec, H.264 16):

    MPEG-1, MPEG-2, MPEG-4 8, H.264 15, ProRes 7, MJPEG 6
    VP8 and VP9 1, HEVC, FFV1 and uncompressed 0: any bytes decode to something there

Of files that were cut off it finds all but MPEG streams (.ts, .mpg), which state nothing of their end.
"""

import contextlib
import ctypes
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from runtime.common.closing import Closing

MARK = "\x01"  # begins our own lines, among FFmpeg's
OPENED, FRAME, END = "opened", "frame", "end"
KEY_FRAME = "I"
# what a recording that begins between two key frames says until the first; no frame is lost that could be seen
BEFORE_FIRST = ("non-existing PPS", "non-existing SPS", "no frame!", "Invalid frame dimensions 0x0")
INTRA = frozenset({"MJPG", "FFV1", "ffv1", "HFYU", "apch", "apcn", "apcs", "apco", "ap4h", "ap4x", "png", "dvsd"})
REORDERED = 16  # frames at most between the one that is decoded and the one that is given (H.264)
ENVIRONMENT = {"OPENCV_LOG_LEVEL": "SILENT", "OPENCV_FFMPEG_LOGLEVEL": "16", "OPENCV_FFMPEG_THREADS": "1"}
ROOT = Path(__file__).parents[2]


class VideoCheck(Closing):
    """Decodes the video at `path` in a process of its own; ask for each frame in order, then for the end."""

    def __init__(self, path: Path) -> None:
        self._changed = threading.Condition()  # guards what follows
        self._seen = 0  # frames that the other process has decoded
        self._ended = False
        self._bad: dict[int, str] = {}  # why a frame cannot be trusted; what was asked for is removed
        self._notes: list[str] = []  # what belongs to no frame
        self._spoilt = ""  # since frame `_since`: why no frame can be trusted until a key frame
        self._since = 0
        self._intra = False
        self._process = self._start(path)
        threading.Thread(target=self._follow, name=f"check of {path}", daemon=True).start()

    @staticmethod
    def _start(path: Path) -> "subprocess.Popen[str]":
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        return subprocess.Popen(
            [sys.executable, "-m", "runtime.sources.video_check", str(path)],
            env={**os.environ, **ENVIRONMENT, "PYTHONPATH": os.pathsep.join(paths)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # Ctrl-C is for the inspection, which then ends this
        )

    def fault(self, index: int) -> str:
        """Wait until frame `index` was checked and say why it cannot be trusted; empty where nothing was found."""
        with self._changed:
            self._changed.wait_for(lambda: self._seen > index or self._ended)
            return self._bad.pop(index, "")

    def end(self) -> str:
        """Wait for the end and say what was found that belongs to no frame."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended)
            return "; ".join(dict.fromkeys(self._notes))

    def _follow(self) -> None:
        errors: list[str] = []  # since the last mark
        state = ""
        for line in self._process.stdout or ():
            if line.startswith(MARK):
                state, *words = line[1:].split()
                self._note(state, words, errors)
                errors = []
            elif text := _plain(line):
                errors.append(text)
        status = self._process.wait()
        with self._changed:
            if state != END:
                self._notes.append(f"it could not be checked for damage (the check ended with status {status})")
            self._ended = True
            self._changed.notify_all()

    def _note(self, state: str, words: list[str], errors: list[str]) -> None:
        with self._changed:
            if self._seen == 0:
                errors = [text for text in errors if not text.startswith(BEFORE_FIRST)]
            if state == FRAME:
                self._note_frame(words[0], errors)
            else:  # opening has looked at the first frames already, which are decoded again
                self._notes += errors[:1]
                self._intra = self._intra or bool(words and words[0] in INTRA)
            self._changed.notify_all()

    def _note_frame(self, kind: str, errors: list[str]) -> None:
        reorder = 0 if self._intra else REORDERED
        if errors:
            self._spoilt, self._since = errors[0], self._seen
        elif self._intra or (kind == KEY_FRAME and self._seen > self._since + reorder):
            self._spoilt = ""
        if self._spoilt:
            self._bad[self._seen] = f"the video's decoder reports an error here ({self._spoilt})"
        self._seen += 1

    def close(self) -> None:
        """End the other process."""
        with contextlib.suppress(OSError):
            self._process.kill()
        self._process.wait()


def _plain(line: str) -> str:
    """Return what FFmpeg said, without OpenCV's "[OPENCV:FFMPEG:16]" before it."""
    return line.rpartition("FFMPEG:16]")[2].strip() if "FFMPEG:" in line else ""


def check(path: str) -> None:
    """Decode the video at `path`, in this process, and write a mark to stdout after each frame."""
    import cv2

    kind_of: Any = getattr(cv2, "CAP_PROP_FRAME_TYPE", None)  # from OpenCV 4.10 on
    capture = cv2.VideoCapture(path)
    code = int(capture.get(cv2.CAP_PROP_FOURCC))
    _mark(OPENED, "".join(chr(code >> shift & 255) for shift in (0, 8, 16, 24)).strip("\0") if code > 0 else "")
    while capture.read()[0]:
        kind = 0 if kind_of is None else int(capture.get(kind_of))
        _mark(FRAME, chr(kind) if 32 < kind < 127 else "?")
    _mark(END)


def packets_in(path: str) -> int:
    """Return how many coded frames are in the video at `path`, more than are shown where its beginning was cut off."""
    from runtime.images.opencv import opencv

    cv2 = opencv()
    capture = cv2.VideoCapture(path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_FORMAT, -1])
    count = 0
    while capture.isOpened() and capture.read()[0]:
        count += 1
    capture.release()
    return count


def _mark(*words: str) -> None:
    ctypes.CDLL(None).fflush(None)  # OpenCV's lines wait in the C library's own buffer
    os.write(1, f"{MARK}{' '.join(words)}\n".encode())


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError, KeyboardInterrupt):
        check(sys.argv[1])
