"""What a picture is in this program."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Image8 = NDArray[np.uint8]  # (H, W, 3), RGB
LARGEST_SIDE = 16384  # pixels of a frame, beyond every camera
LARGE_PIXELS = 2_000_000  # a frame of more is shown reduced, with its defects beside it


def is_large(image: Image8) -> bool:
    """Whether a picture is too large to be shown, or saved, as a whole unless somebody asks for that."""
    return bool(image.shape[0] * image.shape[1] > LARGE_PIXELS)


def held_bytes(array: NDArray[Any]) -> int:
    """Return the bytes that an array keeps in memory: one value, repeated over its whole shape, is one value."""
    return array.nbytes if any(array.strides) else array.itemsize


def every_nth(image: Image8, most: int) -> Image8:
    """Return a view of every n-th pixel of `image`, n as small as its longer side then has `most` pixels at most."""
    step = -(-max(image.shape[:2]) // most)
    return image[::step, ::step]
