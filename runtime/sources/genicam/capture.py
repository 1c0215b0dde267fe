"""An open GenICam camera that sends frames: whole ones are decoded, all others refused and counted."""

import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from runtime.common.errors import UserError
from runtime.images.encoding import Encoding
from runtime.images.pixel_formats import decode, format_of
from runtime.images.pixels import Image8
from runtime.sources.genicam.aravis import aravis, asking, library_error
from runtime.sources.genicam.settings import adjust
from runtime.sources.losses import FrameIds, Losses
from runtime.sources.settings import CameraSettings

BUFFERS = 8  # frames that may arrive while one is decoded
POLL_US = 200_000  # how soon a request to stop is seen while no frame comes
MOST_ROOM = (1 << 31) - 1  # bytes; the kernel gives as much as net.core.rmem_max allows
NAMELESS = 0  # no number of a GigE Vision frame
NS_PER_S = 1e9


@dataclass(frozen=True)
class Manner:
    """How frames are taken: the camera's `name`, whether each answers a software trigger, or any trigger at all.

    `white` is that of 16-bit samples; `losses` are counted on, `say` is told of them.
    """

    name: str
    software: bool
    triggered: bool
    white: int
    losses: Losses
    say: Callable[[str], None]


@dataclass(frozen=True)
class _Whole:
    """A frame that came whole: its bytes, PFNC's number of its format, (width, height), the camera's clock in ns."""

    data: bytes
    code: int
    size: tuple[int, int]
    camera_ns: int


class GenicamCapture:
    """Reads `camera`, which was set up; `read` and `release` are those of an OpenCV capture.

    `camera_s` is when the last frame was taken by the camera's own clock, in seconds (None: it does not say),
    `encoding` its pixel format. Raises `UserError` where the camera does not start.
    """

    def __init__(self, camera: Any, manner: Manner) -> None:
        self.encoding: Encoding | None = None
        self.camera_s: float | None = None
        self._manner = manner
        self._ids = FrameIds()
        self._lost = threading.Event()
        self._open = threading.Lock()  # held while the camera is asked from another thread, or let go
        self._camera = camera
        self._device = camera.get_device()
        self._handler = self._device.connect("control-lost", lambda *_: self._lost.set())
        try:
            with asking(f"{manner.name} must start", "check packet size, network and --genicam settings"):
                self._stream = camera.create_stream(None, None)
                payload = camera.get_payload()
                self._make_room(BUFFERS * payload)
                for _ in range(BUFFERS):
                    self._give(aravis().Buffer.new_allocate(payload))
                camera.start_acquisition()
        except UserError:
            self.release()
            raise

    def _make_room(self, size: int) -> None:
        """Ask the kernel to keep `size` bytes that nobody has read yet: the library asks for those of one frame."""
        if self._camera.is_gv_device():
            self._stream.set_property("socket-buffer", aravis().GvStreamSocketBuffer.FIXED)
            self._stream.set_property("socket-buffer-size", min(size, MOST_ROOM))

    def read(self) -> tuple[bool, Image8 | None]:
        """Return (True, the newest frame), or (True, None) where none came for a moment.

        Raises `UserError` where the camera is lost or sends what cannot be read.
        """
        if self._lost.is_set():
            raise UserError(f"{self._manner.name} must answer", "no answer any more", "check cable and power")
        frame = self._newest()
        if frame is None:
            return True, None
        kind = format_of(frame.code)
        if self.encoding is None:
            self.encoding = Encoding("camera", pixels=kind.name, bits=kind.bits)
        self.camera_s = frame.camera_ns / NS_PER_S if frame.camera_ns else None
        return True, decode(frame.data, kind, frame.size, self._manner.white)

    def _newest(self) -> _Whole | None:
        """Return the newest whole frame; with a trigger the oldest, for each of them was asked for."""
        newest = None
        buffer = self._stream.timeout_pop_buffer(POLL_US)
        taken = 0
        while buffer is not None:
            frame = self._whole(buffer)
            self._give(buffer)
            taken += 1
            if frame is not None:
                self._manner.losses.replaced += newest is not None
                newest = frame
            one_is_enough = self._manner.triggered or taken == BUFFERS
            buffer = None if one_is_enough else self._stream.try_pop_buffer()
        return newest

    def _give(self, buffer: Any) -> None:
        """Let the library fill `buffer`; it writes no number where the packet with that is lost, and leaves the old."""
        buffer.set_frame_id(NAMELESS)
        self._stream.push_buffer(buffer)

    def _whole(self, buffer: Any) -> _Whole | None:
        """Return what `buffer` holds, None (and counted) where it is not whole."""
        library, losses = aravis(), self._manner.losses
        status = buffer.get_status()
        if status in (library.BufferStatus.CLEARED, library.BufferStatus.ABORTED):  # of an end, not of a frame
            return None
        whole, number = status == library.BufferStatus.SUCCESS, buffer.get_frame_id()
        if number == NAMELESS and not whole:
            self._ids.came_nameless()
            late = False
        else:
            missing, late = self._ids.came(number)
            self._miss(missing)
        if not whole:
            self._tell(losses.incomplete, 1, "incomplete", status.value_nick)
            losses.incomplete += 1
            return None
        if late and not self._manner.triggered:  # sent again, and whole by now, but a newer one was judged
            losses.replaced += 1
            return None
        size = (buffer.get_image_width(), buffer.get_image_height())
        return _Whole(buffer.get_data(), buffer.get_image_pixel_format(), size, buffer.get_timestamp())

    def _miss(self, frames: int) -> None:
        losses = self._manner.losses
        if frames:
            self._tell(losses.missing, frames, "missing", "their numbers never came")
            losses.missing += frames

    def _tell(self, before: int, more: int, what: str, why: str) -> None:
        if not before or len(str(before + more)) > len(str(before)):  # the first, and whenever 10, 100, ... are passed
            self._manner.say(f"{self._manner.name}: {before + more} frames {what} so far ({why})")

    def software_trigger(self) -> None:
        """Ask for one frame now. Raises `UserError` where the camera was not set to that, or does not answer."""
        name = self._manner.name
        with self._open:
            if self._camera is None:
                raise UserError(f"{name} must be connected for a trigger", "it is not")
            if not self._manner.software:
                raise UserError(f"{name} must wait for a software trigger", "it does not", "--camera-trigger software")
            with asking(f"{name} must take a trigger", "check cable and power"):
                self._camera.software_trigger()

    def adjust(self, settings: CameraSettings) -> None:
        """Set the camera while it runs; one that is lost is set when it is opened again.

        Raises `UserError` for what it does not take, or not while it runs.
        """
        with self._open:
            if self._camera is not None and not self._lost.is_set():
                adjust(self._camera, settings)

    def release(self) -> None:
        """Stop the camera and let go of it, so that others may open it; a second call does nothing."""
        with self._open:
            if self._camera is None:
                return
            self._device.disconnect(self._handler)
            stop_quietly(self._camera)
            self._miss(self._ids.end())
            self._stream = self._device = self._camera = None  # the last reference gives up the control


def stop_quietly(camera: Any) -> None:
    """Stop a camera that may have stopped already, or be gone."""
    with contextlib.suppress(library_error()):
        camera.stop_acquisition()
