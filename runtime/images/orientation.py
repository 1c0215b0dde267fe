"""Which way up a photo is: the EXIF orientation tag alone, whatever else its EXIF holds."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

ORIENTATION_TAG = 0x0112
UPRIGHT = 1


def _transposed(pixels: NDArray[Any]) -> NDArray[Any]:
    return np.swapaxes(pixels, 0, 1)


TURNS: dict[int, Callable[[NDArray[Any]], NDArray[Any]]] = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: _transposed,
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: _transposed(pixels)[::-1, ::-1],
    8: lambda pixels: np.rot90(pixels, 1),
}


def orientation_of(image: Image.Image) -> int:
    """Return the EXIF orientation of the pixels, 1 to 8, once they are loaded; 1 (upright) where EXIF does not say.

    They are loaded first because Pillow (some releases of it) turns a TIFF while it does that.
    """
    image.load()
    return _tag(image)


def _tag(image: Image.Image) -> int:
    try:
        found = image.getexif().get(ORIENTATION_TAG)
    except Exception:  # Pillow raises whatever a malformed directory makes its parser raise
        return UPRIGHT
    return found if isinstance(found, int) and found in TURNS else UPRIGHT


def turn_upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Return pixels (H, W, ...) turned as their `orientation` says, in one piece."""
    turn = TURNS.get(orientation)
    return pixels if turn is None else np.ascontiguousarray(turn(pixels))


def stated_orientation(image: Image.Image) -> int:
    """Return the same as `orientation_of`; pixels are read of a TIFF alone."""
    return orientation_of(image) if image.format == "TIFF" else _tag(image)


def upright_size(image: Image.Image, orientation: int) -> tuple[int, int]:
    """Return (height, width) in pixels of the image once it is upright."""
    width, height = image.size
    return (width, height) if orientation >= 5 else (height, width)
