"""A GenICam camera as a live source's origin: which one, in nobody else's hands, set up as was asked."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from runtime.common.errors import UserError
from runtime.common.notices import say
from runtime.images.preprocess import PLAIN, ReadOptions
from runtime.sources.camera import CameraRequest, SayOnce
from runtime.sources.genicam.aravis import aravis, found_cameras, library_error
from runtime.sources.genicam.capture import GenicamCapture, Manner, stop_quietly
from runtime.sources.genicam.settings import SOFTWARE, apply
from runtime.sources.losses import Losses
from runtime.sources.reader import Origin
from runtime.sources.settings import CameraSettings
from runtime.sources.urls import file_prefix

HEARTBEAT_S = 5.0  # after which a camera has forgotten a program that was killed
AGAIN_S = 0.5


def genicam_name(camera_id: str) -> str:
    """Return what the camera `camera_id` is called; empty: the only one there is."""
    return f"genicam:{camera_id}" if camera_id else "genicam"


def genicam_origin(
    camera_id: str,
    request: CameraRequest,
    say: Callable[[str], None] = say,
    read: ReadOptions = PLAIN,
) -> Origin:
    """Return the camera of that id or address; empty: the only one that answers.

    Opening raises `UserError` where there is none or several, where another program has it, and for what it cannot be
    set to.
    """
    name, losses, told = genicam_name(camera_id), Losses(), SayOnce(say)
    triggered = request.trigger not in (None, "off")
    by_software = (request.trigger or "").lower() == SOFTWARE
    manner = Manner(name, by_software, triggered, read.white, losses, say)

    chosen, asked = camera_id, request

    def adjust(settings: CameraSettings) -> None:
        nonlocal asked
        named = dict(settings.nodes)
        kept = tuple((name, value) for name, value in request.nodes if name not in named)
        exposure_ms = request.exposure_ms if settings.exposure_ms is None else settings.exposure_ms
        asked = replace(request, exposure_ms=exposure_ms, nodes=(*kept, *settings.nodes))

    def open_camera() -> GenicamCapture:
        nonlocal chosen
        chosen = chosen or _only_one()  # once: after a loss, another one that is there by then is not it
        camera = _controlled(name, chosen)
        stop_quietly(camera)  # a program that was killed left it running, and then it takes no size
        given = apply(camera, asked)
        if asked != CameraRequest():
            told(f"{name}: {given}")
        return GenicamCapture(camera, manner)

    return Origin(name, file_prefix(name), open_camera, "camera", losses, triggered, by_software, adjust)


def _only_one() -> str:
    found = found_cameras()
    if len(found) != 1:
        raise UserError("--camera genicam needs one GenICam camera", _these(found), _cure(bool(found)))
    return found[0].id


def _these(found: list[Any]) -> str:
    return ", ".join(camera.id for camera in found) or "none"


def _cure(any_found: bool) -> str:
    if any_found:
        return "name one of these: --camera genicam:ID"
    return "check cable, power, and that camera and network card have addresses of one network"


def _controlled(name: str, camera_id: str) -> Any:
    """Return the camera opened for writing; waits as long as it may remember a program that was killed."""
    until = time.monotonic() + HEARTBEAT_S
    while True:
        camera = _opened(name, camera_id)
        if not camera.is_gv_device():
            return camera
        # packet sockets, the library's way where it runs as root, get nothing of the loopback
        camera.gv_set_stream_options(aravis().GvStreamOption.PACKET_SOCKET_DISABLED)
        if camera.get_device().is_controller():
            return camera
        if time.monotonic() >= until:
            raise UserError(f"{name} must be free", "another program has control of it", "end that program")
        camera = None
        time.sleep(AGAIN_S)


def _opened(name: str, camera_id: str) -> Any:
    library = aravis()
    try:
        return library.Camera.new(camera_id)
    except library_error() as error:
        if not error.matches(library.device_error_quark(), library.DeviceError.NOT_FOUND):
            raise UserError(f"{name} must open", error.message, "end other programs that use it") from None
    found = found_cameras()
    raise UserError(f"{name} must be a camera that answers", f"these do: {_these(found)}", _cure(bool(found)))
