"""How a reference part is seen: its image is read, or it is put before the camera and one frame is taken."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from runtime.checks.reference import ReferencePart
from runtime.common.errors import UserError
from runtime.common.notices import say
from runtime.images.preprocess import ReadOptions, read_image
from runtime.sources.asked import SoftwareTriggered, adjustable
from runtime.sources.frame import Frame, Source
from runtime.sources.settings import CameraSettings

Show = Callable[[ReferencePart], Frame]
ANSWER_S = 10.0  # that a camera may take for a frame after it was asked for
WORDS = {"good": "GOOD", "anomalous": "BAD"}


def from_files(read: ReadOptions) -> Show:
    """Return what reads a part's image. Calling it raises `UserError` for one that cannot be read."""

    def show(part: ReferencePart) -> Frame:
        if part.image is None:
            raise UserError(f"part {part.name} must have an image", "none", "name one, or use --live")
        return Frame(read_image(part.image, read), part.name, 0, time.time())

    return show


@contextmanager
def from_camera(source: Source, settings: CameraSettings) -> Iterator[Show]:
    """Yield what asks a person for a part and takes the next frame of `source`, a camera or stream that is open.

    Calling it raises `UserError` where nobody answers, or no whole frame comes.
    """
    if not source.live:
        raise UserError("--live needs a camera or a stream", source.name, "leave --live out for images")
    camera = adjustable(source)
    if camera is not None and settings != CameraSettings():
        camera.adjust(settings)
    frames = iter(source)

    def show(part: ReferencePart) -> Frame:
        say(f"put the {WORDS[part.expected]} part {part.name} before {source.name}, then press Enter")
        if not sys.stdin.readline():
            raise UserError(f"part {part.name} must be put before the camera, then Enter", "no more input")
        asked_s, begun = time.monotonic(), False
        if source.software_triggered and isinstance(source, SoftwareTriggered):
            source.software_trigger()
            begun = True
        for frame in frames:  # the newest may have been taken before the part was there
            if begun and frame.monotonic_s >= asked_s and not frame.fault:
                return frame
            begun = begun or frame.monotonic_s >= asked_s  # that one may have been exposed just before it arrived
            if time.monotonic() > asked_s + ANSWER_S:
                break
        raise UserError(f"{source.name} must give a whole frame within {ANSWER_S:g} s", "none", "look at the camera")

    yield show
