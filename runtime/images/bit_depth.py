"""Which sample value is white in an image of more than 8 bits: 10 and 12 bits often come in files of 16."""

import struct
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from runtime.common.errors import UserError

FULL_SCALE = 65535  # of 16 bits
PHOTOMETRIC_TAG = 262  # of a TIFF; 0 says that white is zero
BITS_PER_SAMPLE_TAG = 258
SIXTEEN_BIT_AS_INT32 = frozenset({"PNG", "PPM"})  # formats whose 16-bit grey some Pillow releases open as mode I
PNG_START = 8  # bytes of a PNG before its first chunk
CURE = "give the right one with --white, such as --white 4095 for 12 bits"


def is_sixteen_bit_grey(image: Image.Image) -> bool:
    """Whether `image` holds grey samples of more than 8 bits."""
    return image.mode.startswith("I;16") or (image.mode == "I" and image.format in SIXTEEN_BIT_AS_INT32)


def is_sixteen_bit_colour(image: Image.Image) -> bool:
    """Whether the file holds colours of more than 8 bits, of which Pillow gives the upper 8."""
    if image.format == "PNG":
        return image.mode in ("RGB", "RGBA") and _png_chunk(image, b"IHDR")[8:9] == b"\x10"
    bits = _tiff_tag(image, BITS_PER_SAMPLE_TAG)
    return isinstance(bits, tuple) and len(bits) > 1 and max(bits) > 8


def white_is_zero(image: Image.Image) -> bool:
    """Whether a TIFF says that its samples count darkness."""
    return bool(_tiff_tag(image, PHOTOMETRIC_TAG) == 0)


def grey_to_8_bits(samples: NDArray[Any], white: int, inverted: bool) -> NDArray[np.uint8]:
    """Scale samples (H, W) so that `white` becomes 255, rounded to nearest; `inverted`: white is 0 in the file.

    Raises `UserError` for a sample beyond `white`: the file is of another depth than was said.
    """
    peak = int(samples.max())
    if peak > white:
        raise UserError(f"no sample may be above white, {white}", str(peak), CURE)
    indices = samples if samples.dtype == np.uint16 else np.clip(samples, 0, FULL_SCALE).astype(np.uint16)
    return np.asarray(_levels(white)[white - indices if inverted else indices])


@cache  # a camera asks for each frame
def _levels(white: int) -> NDArray[np.uint8]:
    """Return the 8-bit level of every sample."""
    samples = np.arange(FULL_SCALE + 1, dtype=np.int64)
    return np.minimum((samples * 255 + white // 2) // white, 255).astype(np.uint8)


def stated_bits(image: Image.Image) -> int | None:
    """Return how many bits of 16-bit grey mean something, where the file says it; call it before the pixels are read.

    A TIFF says it as BitsPerSample, a PNG as sBIT; a PGM's largest value has been scaled to 16 bits by Pillow.
    """
    if image.format == "PPM":
        return 16
    if image.format == "PNG":
        return next(iter(_png_chunk(image, b"sBIT")), None)
    bits = _tiff_tag(image, BITS_PER_SAMPLE_TAG)
    bits = bits[0] if isinstance(bits, tuple) and bits else bits
    return bits if isinstance(bits, int) and 8 < bits < 16 else None  # 16 is what such a file's samples take anyway


def white_of(samples: NDArray[Any], stated: int | None, otherwise: int, *, maybe_stretched: bool) -> int:
    """Return the sample value that is white: of the `stated` bits, else `otherwise`.

    A PNG's samples are stretched over all 16 bits, as its standard wants, or (as some cameras' software does) are not;
    then bits are set below those that a dark stretched sample can have.
    """
    if stated is None or not 8 < stated <= 16:
        return otherwise
    unused = (1 << (16 - stated)) - 1
    stretched = maybe_stretched and (int(samples.max()) >= 1 << stated or not (samples & unused).any())
    return FULL_SCALE if stretched else (1 << stated) - 1


def _tiff_tag(image: Image.Image, tag: int) -> Any:
    tags = getattr(image, "tag_v2", None) if image.format == "TIFF" else None
    return None if tags is None else tags.get(tag)


def _png_chunk(image: Image.Image, wanted: bytes) -> bytes:
    """Return what a chunk ahead of a PNG's pixels holds, nothing where there is none; its file must still be open."""
    file = getattr(image, "fp", None)
    if image.format != "PNG" or file is None:
        return b""
    before = file.tell()
    try:
        file.seek(PNG_START)
        while len(head := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            if kind == wanted:
                return bytes(file.read(min(length, 64)))
            if kind == b"IDAT":
                break
            file.seek(length + 4, 1)
        return b""
    finally:
        file.seek(before)
