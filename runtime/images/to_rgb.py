"""Any picture to uint8 RGB: depth, palette, alpha and orientation, in strips so that a large one stays affordable."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from runtime.common.errors import UserError
from runtime.common.notices import say_once
from runtime.images.bit_depth import (
    FULL_SCALE,
    grey_to_8_bits,
    is_sixteen_bit_colour,
    is_sixteen_bit_grey,
    stated_bits,
    white_is_zero,
    white_of,
)
from runtime.images.orientation import orientation_of, turn_upright

ALPHA_MODES = frozenset({"LA", "La", "PA", "RGBA", "RGBa"})
STRIP_PIXELS = 1 << 23  # converted at a time, for what is made on the way takes several times the result's memory
SILENT_ALPHA = "an image's alpha is 0 everywhere and so says nothing: its colours are taken as they are (said once)"


def to_rgb8(image: Image.Image, white: int = FULL_SCALE) -> NDArray[np.uint8]:
    """Return any Pillow image as uint8 (H, W, 3) RGB, upright as its EXIF orientation says.

    Transparent parts are laid over black (`over_black`). Grey of more than 8 bits is scaled so that its white becomes
    255: what the file states, else `white`. Raises `UserError` for a mode without a known full scale (32-bit integers,
    floats) or without a way to RGB, for samples above white, and for 16-bit colours whose white is not 65535.
    """
    bits, deep_colour = stated_bits(image), is_sixteen_bit_colour(image)  # first: EXIF may want the pixels read
    orientation = orientation_of(image)
    if is_sixteen_bit_grey(image):
        return turn_upright(_grey(image, bits, white), orientation)
    if image.mode in ("I", "F"):
        raise UserError("an image must have 1, 8 or 16 bits a channel", f"mode {image.mode}", "save it as 16-bit PNG")
    if white != FULL_SCALE and deep_colour:
        raise UserError(f"with --white {white} images must be grey or of 8 bits", "16-bit colours", "save it in 8 bits")
    try:
        return turn_upright(_colours(image), orientation)
    except ValueError as error:
        raise UserError("an image must have colours that turn into RGB", str(error), "save it as PNG") from None


def _grey(image: Image.Image, bits: int | None, otherwise: int) -> NDArray[np.uint8]:
    samples = np.asarray(image)
    white = white_of(samples, bits, otherwise, maybe_stretched=image.format == "PNG")
    grey = grey_to_8_bits(samples, white, white_is_zero(image))
    return np.repeat(grey[:, :, None], 3, axis=2)


def _colours(image: Image.Image) -> NDArray[np.uint8]:
    has_alpha = image.mode in ALPHA_MODES or "transparency" in image.info
    if has_alpha:
        lows, highs = zip(*(_alpha_range(strip) for _, strip in _strips(image)), strict=True)
        if max(highs) == 0:
            say_once(SILENT_ALPHA)
        has_alpha = min(lows) < 255 and max(highs) > 0
    result: NDArray[np.uint8] = np.empty((image.height, image.width, 3), np.uint8)
    for top, strip in _strips(image):
        rgb = _laid_over_black(strip.convert("RGBA")) if has_alpha else _opaque(strip)
        result[top : top + strip.height] = np.asarray(rgb)
    return result


def _strips(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """Yield the image in parts of whole rows, each with the number of its first row."""
    rows = max(1, STRIP_PIXELS // max(image.width, 1))
    if rows >= image.height:
        yield 0, image
        return
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def _alpha_range(image: Image.Image) -> tuple[int, int]:
    rgba = image if image.mode == "RGBA" else image.convert("RGBA")
    low, high = rgba.getchannel("A").getextrema()
    return int(low), int(high)  # type: ignore[arg-type]  # numbers, for it is a single band


def _opaque(image: Image.Image) -> Image.Image:
    if "transparency" in image.info:  # a palette's or a colour key's, which `convert` would warn of
        image = image.copy()
        del image.info["transparency"]
    return image if image.mode == "RGB" else image.convert("RGB")


def _laid_over_black(rgba: Image.Image) -> Image.Image:
    return Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba).convert("RGB")


def over_black(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return RGBA (H, W, 4) laid over black, (H, W, 3): of files and of captures alike.

    An alpha that is 0 everywhere (what many writers of 32 bits a pixel leave in the fourth byte) would make every
    picture black, and says nothing of any pixel: the colours are taken as they are, and a notice is given once.
    """
    return _colours(Image.fromarray(rgba))
