"""Whether 16-bit images stay in a small part of their scale: a camera of fewer bits whose files do not say it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from runtime.common.notices import say_once
from runtime.images.bit_depth import is_sixteen_bit_colour, is_sixteen_bit_grey, stated_bits
from runtime.images.folders import evenly_spread
from runtime.images.preprocess import ReadOptions, read_with

DARK = 4  # the brightest sample is below one part in so many of the scale
LOOKED_AT = 64  # images, evenly spread
BITS = (10, 12, 14)


def say_if_dark(paths: Sequence[Path], read: ReadOptions) -> None:
    """Say so, with what mends it, where 16-bit images stay below a quarter of the scale that `read` gives them.

    Nothing is said of images of 8 bits, and of those that state their depth. Raises `UserError` naming an image that
    cannot be read.
    """
    chosen = [paths[index] for index in evenly_spread(len(paths), LOOKED_AT)]
    found = [read_with(path, lambda image: _peak(image, read.white), max_pixels=read.max_pixels) for path in chosen]
    shares = [share for share in found if share is not None]
    if not shares or len(shares) < len(found) or max(shares) >= 1 / DARK:
        return
    peak = max(shares)
    bits = next((bits for bits in BITS if peak * read.white < 1 << bits), 16)
    cure = f"train with --white {(1 << bits) - 1} if the camera has {bits} bits, or save colours in 8 bits"
    say_once(f"{len(shares)} images of 16 bits use {peak:.1%} of their scale, {256 * peak:.0f} of 256 levels; {cure}")


def _peak(image: Image.Image, white: int) -> float | None:
    """Return the brightest sample as a share of `white`; None where the file is of 8 bits or states its own white."""
    bits, colour = stated_bits(image), is_sixteen_bit_colour(image)
    if colour:
        return int(np.asarray(image.convert("RGB")).max()) / 255
    if bits is not None or not is_sixteen_bit_grey(image):
        return None
    return int(np.asarray(image).max()) / white
