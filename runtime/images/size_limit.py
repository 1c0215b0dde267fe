"""How large an image file may be: half a megabyte of PNG can hold 13,000 x 13,000 pixels, or a thousand times that."""

import os
import threading
from functools import cache
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from runtime.common.errors import UserError
from runtime.common.machine import memory_bytes

VARIABLE = "CFLOW_MAX_PIXELS"
BYTES_PER_PIXEL = 10  # most that reading takes: Pillow's 4, the result's 3, and 3 more where it is turned upright
SHARE_OF_MEMORY = 4
SHARE_OF_FILE = 2  # of the memory: what a file may take that is read as a whole
_PILLOWS_LIMIT = threading.Lock()


def default_max_pixels() -> int:
    """Return what the environment's `CFLOW_MAX_PIXELS` says, else how many pixels a quarter of the memory takes.

    Raises `UserError` where it says no number. It is for every command, those too that have no option for it.
    """
    if not (said := os.environ.get(VARIABLE, "")):
        return _of_memory()
    if not (said.isascii() and said.isdigit() and int(said) > 0):
        raise UserError(f"{VARIABLE} must be a number of pixels", repr(said), f"for example {VARIABLE}=400000000")
    return int(said)


@cache
def _of_memory() -> int:
    return memory_bytes() // SHARE_OF_MEMORY // BYTES_PER_PIXEL


def check_size(size: tuple[int, int], max_pixels: int | None) -> None:
    """Raise `UserError` for an image of more than `max_pixels` (None: `default_max_pixels`); `size` is Pillow's."""
    limit = default_max_pixels() if max_pixels is None else max_pixels
    width, height = size
    if width * height > limit:
        cure = f"save it smaller, or allow more: --max-pixels where there is that option, or set {VARIABLE}"
        raise UserError(f"an image may have {limit} pixels", f"{width}x{height}", cure)


def check_file_size(count: int) -> None:
    """Raise `UserError` for a file of so many bytes that reading it could exhaust the memory, whatever it holds."""
    if count > (limit := memory_bytes() // SHARE_OF_FILE):
        raise UserError(f"an image file may have {limit} bytes here", str(count), "replace or remove the file")


def open_image(source: str | Path | BinaryIO) -> Image.Image:
    """Open an image file as Pillow does, without Pillow's own bound, which line-scan pictures exceed.

    Follow it with `check_size`. That bound is the whole process's, so it comes back at once.
    """
    with _PILLOWS_LIMIT:
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(source)
        finally:
            Image.MAX_IMAGE_PIXELS = before
