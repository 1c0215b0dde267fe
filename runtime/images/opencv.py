"""OpenCV, imported on first use so that commands which need no pictures start fast."""

import os
from functools import cache
from typing import Any

from runtime.common.errors import UserError


@cache
def opencv() -> Any:
    """Return the `cv2` module, its own console messages off: errors are reported once, by the caller.

    Raises `UserError` where OpenCV is not installed.
    """
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")  # for releases before 4.8 (JetPack 5's, Debian 12's)
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # AV_LOG_QUIET, read when a video is opened
    try:
        import cv2
    except ImportError as error:
        raise UserError("OpenCV must be installed", str(error), "pip install opencv-python-headless") from None
    if hasattr(cv2.utils, "logging"):
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    return cv2
