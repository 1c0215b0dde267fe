"""Live sources that OpenCV opens by text: network streams (FFmpeg), GStreamer pipelines, a Jetson's CSI camera."""

import time
from typing import Any

from runtime.common.addresses import pipeline_without_secrets, without_secrets
from runtime.common.errors import UserError
from runtime.images.encoding import EncodingKind
from runtime.images.opencv import opencv
from runtime.images.preprocess import PLAIN, ReadOptions
from runtime.sources.backoff import STALL_AFTER_S
from runtime.sources.camera import CameraRequest
from runtime.sources.reader import Origin
from runtime.sources.urls import file_prefix, parse_url

CSI_SIZE = (1920, 1080)  # (width, height); a mode of every sensor that JetPack ships a driver for
CSI_FPS = 30.0


def url_origin(
    url: str,
    stall_after_s: float | None = STALL_AFTER_S,
    fps: float | None = None,
    read: ReadOptions = PLAIN,
) -> Origin:
    """Return the stream at `url`; FFmpeg's own reads end after `stall_after_s`, so that no thread hangs in one.

    An http address that answers one picture a request is asked `fps` times a second, or once.
    """
    parsed, shown = parse_url(url), without_secrets(url)
    address = str(parsed) if parsed.sign_in else url
    timeout_ms = round(1000 * (stall_after_s or STALL_AFTER_S))

    is_stream = False  # known from the first time: asking costs the camera a connection

    def open_url() -> Any:
        nonlocal is_stream
        if not is_stream and parsed.scheme in ("http", "https"):
            from runtime.sources.snapshots import SNAPSHOTS_FPS, Snapshots  # here: http and TLS take their time to load

            every_s = 1 / (fps or SNAPSHOTS_FPS)
            snapshots = Snapshots(parsed, shown, timeout_ms / 1e3, every_s, read)
            if snapshots.answers():
                if stall_after_s is not None and every_s >= stall_after_s:
                    found = f"one each {every_s:g} s by --camera-fps"
                    raise UserError(f"pictures must come within --stall-after {stall_after_s:g}", found, "raise either")
                return snapshots
        cv2 = opencv()
        params = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, timeout_ms]
        # OpenCV's own limit for a read is 30 s; 0 lifts it
        params += [cv2.CAP_PROP_READ_TIMEOUT_MSEC, 0 if stall_after_s is None else timeout_ms]
        backend = cv2.CAP_FFMPEG if cv2.videoio_registry.hasBackend(cv2.CAP_FFMPEG) else cv2.CAP_ANY
        began = time.monotonic()
        capture = cv2.VideoCapture(address, backend, params)
        if not capture.isOpened():
            capture.release()
            found = f"no stream with pictures in {time.monotonic() - began:.1f} s"
            raise UserError(f"{shown} must open", found, "check address, network and sender")
        is_stream = True
        return capture

    return Origin(shown, file_prefix(shown), open_url)


def csi_pipeline(sensor: int, request: CameraRequest) -> str:
    """Return the GStreamer pipeline of a Jetson's CSI camera: Argus, BGR in the processor's memory, newest frame."""
    width, height = request.size or CSI_SIZE
    exposure = ""
    if request.exposure_ms:
        ns = round(request.exposure_ms * 1e6)
        exposure = f' exposuretimerange="{ns} {ns}" aelock=true'
    return (
        f"nvarguscamerasrc sensor-id={sensor}{exposure} ! "
        f"video/x-raw(memory:NVMM), width={width}, height={height}, format=NV12, "
        f"framerate={_fraction(request.fps or CSI_FPS)} ! "
        "nvvidconv ! video/x-raw, format=BGRx ! videoconvert ! video/x-raw, format=BGR ! "
        "appsink drop=true max-buffers=1 sync=false"
    )


def _fraction(fps: float) -> str:
    return f"{round(fps)}/1" if fps == round(fps) else f"{round(1000 * fps)}/1000"


def csi_origin(sensor: int, request: CameraRequest) -> Origin:
    """Return camera `sensor` of a Jetson's CSI connectors."""
    return pipeline_origin(csi_pipeline(sensor, request), f"csi:{sensor}", f"csi{sensor}", "camera")


def pipeline_origin(pipeline: str, name: str = "", prefix: str = "gst", kind: EncodingKind = "stream") -> Origin:
    """Return a GStreamer pipeline, which must end in an `appsink`. Opening raises `UserError` without GStreamer."""
    name = name or f"gst: {pipeline_without_secrets(pipeline)}"

    def open_pipeline() -> Any:
        cv2 = opencv()
        lack = gstreamer_lack()
        if lack:
            raise UserError(f"{name} needs an OpenCV with GStreamer", lack, "use JetPack's or Debian's python3-opencv")
        capture = cv2.VideoCapture(pipeline, cv2.CAP_GSTREAMER)
        if not capture.isOpened():
            capture.release()
            raise UserError(f"{name} must open", "a pipeline that does not start", "try it with gst-launch-1.0")
        return capture

    return Origin(name, prefix, open_pipeline, kind)


def check_pipeline(pipeline: str) -> None:
    """Raise `UserError` for a pipeline that gives OpenCV nothing to read."""
    last = pipeline.rpartition("!")[2].split()
    if not last or last[0] != "appsink":
        raise UserError(
            "a GStreamer pipeline must end in ! appsink", repr(pipeline_without_secrets(pipeline)), "add it"
        )


def gstreamer_lack() -> str:
    """Return what is the matter with this OpenCV's GStreamer; "" where it has it."""
    cv2 = opencv()
    if cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER):
        return ""
    return f"OpenCV {cv2.__version__} without (pip's packages have none)"
