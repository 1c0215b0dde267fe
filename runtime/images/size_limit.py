"""How large an image file may be: half a megabyte of PNG can hold 13,000 x 13,000 pixels, or a thousand times that."""

import threading
from functools import cache
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from runtime.common.errors import UserError
from runtime.common.machine import memory_bytes

BYTES_PER_PIXEL = 10  # most that reading takes: Pillow's 4, the result's 3, and 3 more where it is turned upright
SHARE_OF_MEMORY = 4
_PILLOWS_LIMIT = threading.Lock()


@cache
def default_max_pixels() -> int:
    """Return how many pixels a quarter of this machine's memory takes."""
    return memory_bytes() // SHARE_OF_MEMORY // BYTES_PER_PIXEL


def check_size(size: tuple[int, int], max_pixels: int | None) -> None:
    """Raise `UserError` for an image of more than `max_pixels` (None: `default_max_pixels`); `size` is Pillow's."""
    limit = default_max_pixels() if max_pixels is None else max_pixels
    width, height = size
    if width * height > limit:
        cure = "cut it up or save it smaller, or allow more with --max-pixels if it is what it should be"
        raise UserError(f"an image may have {limit} pixels", f"{width}x{height}", cure)


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
