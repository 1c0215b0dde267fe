"""A live camera: a thread captures all the time and keeps the newest frame only.

A camera's own queue is latency: judging frame n while n + 1 .. n + 4 wait in a driver's buffers
means that each verdict is late by four frames, for ever. Here what cannot be judged in time is
dropped, and counted.
"""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from runtime.errors import UserError
from runtime.frame import Frame, Image8
from runtime.opencv import opencv

JOIN_S = 12.0  # V4L2 gives up on a silent camera after 10 s, and only then does `read` return


class Camera:
    """Camera `number` of this machine (`/dev/video<number>` on Linux); capturing starts at once.

    Raises `UserError` if it does not open, and while iterating if it stops delivering.
    """

    live = True

    def __init__(self, number: int) -> None:
        self.name = f"camera:{number}"
        self._capture = opencv().VideoCapture(number)
        if not self._capture.isOpened():
            self._capture.release()
            raise UserError(f"camera {number} must open", "no such camera, or one in use", available_cameras())
        self._prefix = f"camera{number}"
        self._newest: Frame | None = None
        self._dropped = 0
        self._ended = False
        self._stopping = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._capture_all, name=self.name, daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Frames captured but never yielded."""
        return self._dropped

    def _capture_all(self) -> None:
        """Fill `_newest` until told to stop or the camera fails; then release the camera, in this thread."""
        index = 0
        try:
            while not self._stopping:
                ok, bgr = self._capture.read()
                if not ok:
                    break
                self._put(opencv().cvtColor(bgr, opencv().COLOR_BGR2RGB), index)
                index += 1
        finally:
            self._capture.release()
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _put(self, image: Image8, index: int) -> None:
        frame = Frame(image, f"{self._prefix}_{index:06d}", index, time.time())
        with self._changed:
            if self._newest is not None:
                self._dropped += 1
            self._newest = frame
            self._changed.notify_all()

    def _take(self) -> Frame | None:
        """Wait for a frame not yet yielded; None once the camera has ended."""
        with self._changed:
            self._changed.wait_for(lambda: self._newest is not None or self._ended)
            frame, self._newest = self._newest, None
            return frame

    def __iter__(self) -> Iterator[Frame]:
        while (frame := self._take()) is not None:
            yield frame
        if not self._stopping:
            raise UserError(f"{self.name} must keep delivering frames", "none any more", "check cable and power")

    def close(self) -> None:
        """Stop capturing and release the camera."""
        self._stopping = True
        self._thread.join(JOIN_S)

    def __enter__(self) -> "Camera":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def available_cameras() -> str:
    """Return a sentence that says which cameras this machine shows."""
    devices = sorted(Path("/dev").glob("video*"))
    if not devices:
        return "this machine shows no /dev/video*: plug in a camera, or pass its device into the container"
    return f"this machine shows {', '.join(map(str, devices))}: choose one of these numbers"
