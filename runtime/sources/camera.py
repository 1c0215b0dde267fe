"""Cameras with a number (V4L2 on Linux), and what is asked of them: size, frames per second, exposure, format.

A driver may refuse a request, or give something near it, without a word. So everything asked for is read back.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.common.errors import UserError
from runtime.common.notices import say
from runtime.images.opencv import opencv
from runtime.sources.reader import Origin

MANUAL_EXPOSURE = 1  # V4L2_EXPOSURE_MANUAL
EXPOSURE_STEPS_PER_MS = 10  # V4L2_CID_EXPOSURE_ABSOLUTE counts in 100 µs


@dataclass(frozen=True)
class CameraRequest:
    """What a camera is asked for; None: as its driver has it.

    `size` is (width, height) in pixels, `exposure_ms` switches automatic exposure off, `pixel_format` is four
    characters for a camera with a number ("MJPG" for most USB cameras at full size and rate), or GenICam's name
    ("Mono12p").
    GenICam's alone: `trigger` names what makes the camera take each frame ("software", "line0"; "off" and None: it runs
    freely), and `nodes` are settings by their names, with texts for values.
    """

    size: tuple[int, int] | None = None
    fps: float | None = None
    exposure_ms: float | None = None
    pixel_format: str | None = None
    trigger: str | None = None
    nodes: tuple[tuple[str, str], ...] = ()


class SayOnce:
    """Passes on a line unless it is the one passed on last: a camera that comes back as it was says nothing new."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._last = ""

    def __call__(self, line: str) -> None:
        """Pass `line` on, or not."""
        if line != self._last:
            self._last = line
            self._say(line)


def camera_origin(number: int, request: CameraRequest, say: Callable[[str], None] = say) -> Origin:
    """Return camera `number` of this machine (`/dev/video<number>` on Linux).

    `say` is told once what the driver gave where anything was asked for. Opening raises `UserError` where there is no
    such camera. Raises it here for a pixel format that has not four characters.
    """
    if request.pixel_format and len(request.pixel_format) != 4:
        expected = "a camera with a number has a pixel format of four characters"
        raise UserError(expected, repr(request.pixel_format), "for example --camera-format MJPG")
    name = f"camera:{number}"
    told = SayOnce(say)

    def open_camera() -> Any:
        cv2 = opencv()
        # on a Jetson OpenCV would try GStreamer first, which knows nothing of exposure
        backend = cv2.CAP_V4L2 if sys.platform == "linux" else cv2.CAP_ANY
        capture = cv2.VideoCapture(number, backend)
        if not capture.isOpened():
            capture.release()
            raise UserError(f"camera {number} must open", "no such camera, or one in use", available_cameras())
        if request != CameraRequest():
            told(f"{name}: {_apply(capture, request)}")
        return capture

    return Origin(name, f"camera{number}", open_camera, "camera")


def _apply(capture: Any, request: CameraRequest) -> str:
    """Ask for everything in `request`, and return a sentence on what the driver gave."""
    cv2 = opencv()
    if request.pixel_format:  # first: it decides which sizes and rates there are
        capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*request.pixel_format))
    if request.size:
        capture.set(cv2.CAP_PROP_FRAME_WIDTH, request.size[0])
        capture.set(cv2.CAP_PROP_FRAME_HEIGHT, request.size[1])
    if request.fps:
        capture.set(cv2.CAP_PROP_FPS, request.fps)
    if request.exposure_ms:
        capture.set(cv2.CAP_PROP_AUTO_EXPOSURE, MANUAL_EXPOSURE)
        capture.set(cv2.CAP_PROP_EXPOSURE, round(request.exposure_ms * EXPOSURE_STEPS_PER_MS))
    return _given(capture, request)


def _given(capture: Any, request: CameraRequest) -> str:
    cv2 = opencv()
    size = (round(capture.get(cv2.CAP_PROP_FRAME_WIDTH)), round(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)))
    fps = capture.get(cv2.CAP_PROP_FPS)
    parts = [
        _answer(f"{size[0]}x{size[1]}", request.size and f"{request.size[0]}x{request.size[1]}", size == request.size),
        _answer(f"{fps:g} fps", request.fps and f"{request.fps:g}", abs(fps - (request.fps or 0)) < 0.05),
    ]
    if request.exposure_ms:
        given_ms = capture.get(cv2.CAP_PROP_EXPOSURE) / EXPOSURE_STEPS_PER_MS
        manual = capture.get(cv2.CAP_PROP_AUTO_EXPOSURE) == MANUAL_EXPOSURE
        near = manual and abs(given_ms - request.exposure_ms) < 1 / EXPOSURE_STEPS_PER_MS
        text = f"exposure {given_ms:g} ms" if manual else "automatic exposure"
        parts.append(_answer(text, f"{request.exposure_ms:g} ms", near))
    if request.pixel_format:
        code = int(capture.get(cv2.CAP_PROP_FOURCC))
        fourcc = "".join(chr(code >> shift & 255) for shift in (0, 8, 16, 24)).strip("\0")
        parts.append(_answer(f"format {fourcc or 'unknown'}", request.pixel_format, fourcc == request.pixel_format))
    return ", ".join(parts)


def _answer(given: str, wanted: str | float | None, granted: bool) -> str:
    return given if granted or not wanted else f"{given} (asked for {wanted}: refused)"


def available_cameras() -> str:
    """Return a sentence that says which cameras this machine shows."""
    devices = sorted(Path("/dev").glob("video*"))
    if not devices:
        return "this machine shows no /dev/video*: plug in a camera, or pass its device into the container"
    return f"this machine shows {', '.join(map(str, devices))}: choose one of these numbers"
