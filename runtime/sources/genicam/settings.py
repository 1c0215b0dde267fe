"""What a GenICam camera is asked for, in an order that cameras accept, and what it has after that."""

from collections.abc import Sequence
from typing import Any

from runtime.common.errors import UserError
from runtime.sources.camera import CameraRequest
from runtime.sources.genicam.aravis import aravis, asking
from runtime.sources.genicam.nodes import check_range, choices_of, set_node, value_of
from runtime.sources.settings import CameraSettings

PACKET_SIZE = "GevSCPSPacketSize"
SOFTWARE = "software"
STORED = "UserSet"  # begins the names of what loads settings: first, or it would undo the others


def apply(camera: Any, request: CameraRequest) -> str:
    """Ask for everything in `request` and return a sentence on what the camera has now.

    Raises `UserError` for what it has not, cannot take, or has a range or choices for.
    """
    device = camera.get_device()
    stored = [node for node in request.nodes if node[0].startswith(STORED)]
    _set_nodes(device, stored)
    _set_plain(camera)
    if camera.is_gv_device() and PACKET_SIZE in dict(request.nodes):  # else the library tries what the way can carry
        camera.gv_set_packet_size_adjustment(aravis().GvPacketSizeAdjustment.NEVER)
    _set_picture(camera, request)
    if request.trigger and request.trigger != "off":
        _set_trigger(camera, request.trigger)
    _set_nodes(device, [node for node in request.nodes if node not in stored])
    return _given(camera, request)


def adjust(camera: Any, settings: CameraSettings) -> None:
    """Set what may change while the camera runs. Raises `UserError` as `apply` does."""
    if settings.exposure_ms:
        _set_exposure(camera, settings.exposure_ms)
    _set_nodes(camera.get_device(), settings.nodes)


def _set_nodes(device: Any, nodes: Sequence[tuple[str, str]]) -> None:
    for name, text in nodes:
        set_node(device, name, text)


def _set_picture(camera: Any, request: CameraRequest) -> None:
    device = camera.get_device()
    if request.pixel_format:
        set_node(device, "PixelFormat", request.pixel_format)
    if request.size:
        _set_size(device, request.size)
    if request.exposure_ms:
        _set_exposure(camera, request.exposure_ms)
    if request.fps:
        _set_fps(camera, request.fps)


def _set_plain(camera: Any) -> None:
    """Let the camera run freely and send pictures only, whatever an earlier program left behind."""
    with asking("the camera must run without a trigger"):
        if camera.is_feature_available("TriggerMode"):
            camera.clear_triggers()
        if camera.is_feature_available("AcquisitionMode"):
            camera.set_acquisition_mode(aravis().AcquisitionMode.CONTINUOUS)
        if camera.is_feature_available("ChunkModeActive"):
            camera.set_boolean("ChunkModeActive", False)


def _set_size(device: Any, size: tuple[int, int]) -> None:
    for offset in ("OffsetX", "OffsetY"):  # which bound the width and height
        if device.is_feature_available(offset):
            set_node(device, offset, "0")
    for name, pixels in zip(("Width", "Height"), size, strict=True):
        set_node(device, name, str(pixels))


def _set_exposure(camera: Any, exposure_ms: float) -> None:
    with asking("the camera must take --exposure"):
        if camera.is_exposure_auto_available():
            camera.set_exposure_time_auto(aravis().Auto.OFF)
        least, most = (bound / 1e3 for bound in camera.get_exposure_time_bounds())
        check_range("--exposure", exposure_ms, (least, most), f"{exposure_ms:g}")
        camera.set_exposure_time(1e3 * exposure_ms)


def _set_fps(camera: Any, fps: float) -> None:
    with asking("the camera must take --camera-fps"):
        bounds = camera.get_frame_rate_bounds()
        check_range("--camera-fps", fps, (bounds[0], bounds[1]), f"{fps:g}")
        camera.set_frame_rate(fps)


def _set_trigger(camera: Any, wanted: str) -> None:
    """One frame for each trigger of the source `wanted`, of whatever case."""
    choices = choices_of(camera.get_device(), "TriggerSource")
    for choice in choices:
        if choice.casefold() == wanted.casefold():
            with asking("the camera must take --camera-trigger"):
                camera.set_trigger(choice)
            return
    found = f"{wanted!r}; the camera has {', '.join(choices) or 'no trigger'}"
    raise UserError("--camera-trigger must be off or a trigger source of the camera", found)


def _given(camera: Any, request: CameraRequest) -> str:
    device = camera.get_device()
    parts = [f"{value_of(device, 'Width')}x{value_of(device, 'Height')}", value_of(device, "PixelFormat")]
    with asking("the camera must say what it was set to"):
        if request.fps:
            parts.append(_answer(f"{camera.get_frame_rate():g} fps", f"{request.fps:g}", camera.get_frame_rate()))
        if request.exposure_ms:
            ms = camera.get_exposure_time() / 1e3
            parts.append(_answer(f"exposure {ms:g} ms", f"{request.exposure_ms:g}", ms))
        if request.trigger:
            parts.append(f"trigger {request.trigger}")
    for name, text in request.nodes:
        parts.append(_answer(f"{name} {value_of(device, name)}", text, value_of(device, name)))
    return ", ".join(parts)


def _answer(given: str, wanted: str, value: str | float) -> str:
    """Return `given`, and what was asked for where a number is another one."""
    try:
        near = abs(float(value) - float(wanted)) <= max(1e-9, 0.01 * abs(float(wanted)))
    except ValueError:  # a choice or a text, which the camera took
        near = True
    return given if near else f"{given} (asked for {wanted}: refused)"
