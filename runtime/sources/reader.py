"""One connection to a live source: a thread that opens it, reads until it fails, and releases it."""

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from runtime.common.errors import UserError
from runtime.images.encoding import Encoding, EncodingKind, encoding_of_capture
from runtime.images.opencv import opencv
from runtime.images.pixels import Image8
from runtime.images.to_rgb import over_black
from runtime.sources.losses import Losses
from runtime.sources.settings import CameraSettings


@dataclass(frozen=True)
class Origin:
    """A live source that is not open yet.

    `open` returns an OpenCV capture or raises `UserError`; `prefix` begins its frames' names, a part of a file name.
    `losses` counts what its captures lost, where they can tell. `may_be_silent`: it sends nothing until it is asked to,
    and says itself when it is lost. `software_triggered`: it is asked by its capture's `software_trigger`. `adjust` has
    what `open` returns from now on take other settings (None: it takes none while it runs); a capture that is open has
    an `adjust` of its own.
    """

    name: str
    prefix: str
    open: Callable[[], Any]
    kind: EncodingKind = "stream"
    losses: Losses = field(default_factory=Losses)
    may_be_silent: bool = False
    software_triggered: bool = False
    adjust: Callable[[CameraSettings], None] | None = None


class Reader:
    """Reads `capture` (opens `origin` where that is None) in a thread of its own, which also releases it.

    Hands every picture with itself to `put`. `done` is set once everything is released, `why` then says what ended
    it. `alive_s` is the time (monotonic) of the last picture, at first of the start; `camera_s` is that of the camera's
    own clock (None: it does not say).
    """

    def __init__(self, origin: Origin, capture: Any, put: Callable[["Reader", Image8], None]) -> None:
        self.done = threading.Event()
        self.why = ""
        self.pictures = 0
        self.encoding: Encoding | None = None
        self.camera_s: float | None = None
        self.alive_s = time.monotonic()
        self._origin = origin
        self._capture = capture
        self._setting = threading.Lock()  # held while the camera is set; guards `_asked`
        self._asked: CameraSettings | None = None  # what came while it was being opened
        self._put = put
        self._stopping = threading.Event()
        self._ends = ""
        threading.Thread(target=self._run, name=f"{origin.name} reader", daemon=True).start()

    def stop(self, why: str = "stopped") -> None:
        """Ask the thread to end; it does as soon as the driver returns from what it is at. `why` is what it tells."""
        self._ends = why
        self._stopping.set()

    def software_trigger(self) -> None:
        """Ask the camera for one frame now. Raises `UserError` where it is not open, or takes no such trigger."""
        capture, name = self._capture, self._origin.name
        if capture is None:
            raise UserError(f"{name} must be connected for a trigger", "it is not")
        if not hasattr(capture, "software_trigger"):
            raise UserError("a software trigger needs a GenICam camera", name, "--camera genicam:ID")
        capture.software_trigger()

    def adjust(self, settings: CameraSettings) -> None:
        """Set the camera, as soon as it is open. Raises `UserError` for what an open one does not take."""
        with self._setting:
            if self._capture is None:  # it is being opened, perhaps by what was asked for before
                self._asked = settings
            else:
                self._capture.adjust(settings)

    def _open(self) -> None:
        capture = self._origin.open()
        with self._setting:
            self._capture = capture
            if self._asked is not None:
                capture.adjust(self._asked)

    def _run(self) -> None:
        try:
            self._read_all()
        except UserError as error:
            self.why = str(error)
        except Exception as error:  # whatever a driver's binding raises, the connection is lost and can be tried again
            self.why = f"{type(error).__name__}: {error}"
        finally:
            if self._capture is not None:
                with contextlib.suppress(Exception):
                    self._capture.release()
            self.done.set()

    def _read_all(self) -> None:
        if self._capture is None:
            self._open()
        while not self._stopping.is_set():
            ok, pixels = self._capture.read()
            if not ok:
                self.why = "none any more"
                return
            if pixels is None:  # not yet
                continue
            self.alive_s = time.monotonic()
            self.pictures += 1
            self.camera_s = getattr(self._capture, "camera_s", None)
            if self.encoding is None:
                self.encoding = self._encoding()
            self._put(self, to_rgb(pixels))
            del pixels  # or it would stay in memory until the next one is there
        self.why = self._ends

    def _encoding(self) -> Encoding:
        with contextlib.suppress(Exception):  # a driver that does not say
            told: Encoding | None = getattr(self._capture, "encoding", None)
            return told or encoding_of_capture(self._capture, self._origin.kind)
        return Encoding(self._origin.kind)


def to_rgb(pixels: Any) -> Image8:
    """Return what a capture gives (BGR, BGRA or grey, 8 bits) as uint8 (H, W, 3) RGB, alpha taken as files' is.

    Raises `UserError` for anything else.
    """
    cv2 = opencv()
    codes = {1: cv2.COLOR_GRAY2RGB, 3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGBA}
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    if pixels.dtype != np.uint8 or channels not in codes:
        raise UserError("a capture must give 8-bit BGR, BGRA or grey", f"{pixels.dtype} {pixels.shape}")
    converted: Image8 = cv2.cvtColor(pixels, codes[channels])
    return over_black(converted) if channels == 4 else converted
