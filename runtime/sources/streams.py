"""Live sources that OpenCV opens by text: network streams (FFmpeg), GStreamer pipelines, a Jetson's CSI camera."""

import re
import time
from typing import Any
from urllib.parse import urlsplit

from runtime.common.errors import UserError
from runtime.images.encoding import EncodingKind
from runtime.images.opencv import opencv
from runtime.sources.backoff import STALL_AFTER_S
from runtime.sources.camera import CameraRequest
from runtime.sources.reader import Origin

URL_SCHEMES = frozenset({"http", "https", "rtmp", "rtp", "rtsp", "rtsps", "srt", "tcp", "udp"})
CSI_SIZE = (1920, 1080)  # (width, height); a mode of every sensor that JetPack ships a driver for
CSI_FPS = 30.0


def is_url(text: str) -> bool:
    """Return whether `text` begins as a URL does, whatever its scheme."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text) is not None


def check_url(text: str) -> None:
    """Raise `UserError` for a scheme that no stream has."""
    scheme = urlsplit(text).scheme.lower()
    if scheme not in URL_SCHEMES:
        known = ", ".join(sorted(URL_SCHEMES))
        raise UserError(f"a stream's URL must begin with one of {known}", f"{scheme}://", "for a file give its path")


def without_secrets(url: str) -> str:
    """Return `url` as it may stand in logs: without password and query, where cameras take keys."""
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    shown = f"{user.partition(':')[0]}{at}{host}{parts.path}"
    return f"{parts.scheme}://{shown}"


def file_prefix(text: str) -> str:
    """Return `text` as a part of a file name."""
    return re.sub(r"[^A-Za-z0-9.-]+", "_", text).strip("_.")[:80]


def url_origin(url: str, stall_after_s: float | None = STALL_AFTER_S) -> Origin:
    """Return the stream at `url`; FFmpeg's own reads end after `stall_after_s`, so that no thread hangs in one."""
    shown = without_secrets(url)
    timeout_ms = round(1000 * (stall_after_s or STALL_AFTER_S))

    def open_url() -> Any:
        cv2 = opencv()
        params = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, timeout_ms]
        # OpenCV's own limit for a read is 30 s; 0 lifts it
        params += [cv2.CAP_PROP_READ_TIMEOUT_MSEC, 0 if stall_after_s is None else timeout_ms]
        backend = cv2.CAP_FFMPEG if cv2.videoio_registry.hasBackend(cv2.CAP_FFMPEG) else cv2.CAP_ANY
        began = time.monotonic()
        capture = cv2.VideoCapture(url, backend, params)
        if not capture.isOpened():
            capture.release()
            found = f"no stream with pictures in {time.monotonic() - began:.1f} s"
            raise UserError(f"{shown} must open", found, "check address, network and sender")
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
    name = name or f"gst: {pipeline}"

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
        raise UserError("a GStreamer pipeline must end in ! appsink", repr(pipeline), "add it")


def gstreamer_lack() -> str:
    """Return what is the matter with this OpenCV's GStreamer; "" where it has it."""
    cv2 = opencv()
    if cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER):
        return ""
    return f"OpenCV {cv2.__version__} without (pip's packages have none)"
