"""Whether a PNG holds the pixels that its header promises: Pillow fills rows that are missing with black, silently.

A header can also promise gigabytes that the file does not have.
"""

import os
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO

import numpy as np
from PIL import Image

from runtime.common.errors import UserError

HEADER = struct.Struct(">16x II BBBBB")  # width, height, bits, colours, compression, filter, interlaced
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
PASSES = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)  # x, y, steps
TEXTS, PROFILE = (b"tEXt", b"zTXt", b"iTXt"), b"Raw profile type "  # where older programs put EXIF
MOST_SHRUNK = 1032  # bytes that one byte of deflate can stand for
PIECE = 1 << 20


def check_promise(head: bytes, size: int) -> None:
    """Raise `UserError` for a PNG of `size` bytes, too short for its picture; before memory is taken for that.

    Of `head` the first `HEADER.size` bytes are looked at.
    """
    if (promised := _promised_bytes(head)) > MOST_SHRUNK * size:
        raise _too_few(f"{size} bytes for {promised}")


def check_pixels(image: Image.Image, read: Callable[[], bytes]) -> None:
    """Raise `UserError` where pixels of a PNG are missing that Pillow has read; `image` is that, `read` reads the file.

    The last row of such a picture is 0 all over, so that others need not be unpacked a second time; a row that is
    interlaced may lack some of its pixels only.
    """
    last = image.crop((0, image.height - 1, image.width, image.height))
    if np.asarray(last).any() and not image.info.get("interlace"):
        return
    content = read()
    promised, found, stream = _promised_bytes(content), 0, zlib.decompressobj()
    try:
        for part in _parts(content):
            while part and not stream.eof:
                found += len(stream.decompress(part, PIECE))
                part = stream.unconsumed_tail
    except zlib.error as error:
        raise UserError("an image must be whole", f"damage ({error})", "replace or remove the file") from None
    if found < promised:
        raise _too_few(f"{found} of {promised} bytes")


def _too_few(found: str) -> UserError:
    return UserError("an image must be whole", f"pixels missing ({found})", "replace or remove the file")


def _promised_bytes(content: bytes) -> int:
    """Return how many bytes the header's pixels take, with the one before each row."""
    width, height, bits, colours, _, _, interlaced = HEADER.unpack_from(content)
    bits *= CHANNELS.get(colours, 1)
    if not interlaced:
        return _bytes(width, height, bits)
    return sum(_bytes(-(-(width - x) // dx), -(-(height - y) // dy), bits) for x, y, dx, dy in PASSES)


def _bytes(width: int, height: int, bits: int) -> int:
    return height * (1 + -(-width * bits // 8)) if width > 0 and height > 0 else 0


def _parts(content: bytes) -> Iterator[bytes]:
    """Yield the packed pixels."""
    place = 8
    while place + 8 <= len(content):
        (length,) = struct.unpack_from(">I", content, place)
        if content[place + 4 : place + 8] == b"IDAT":
            yield content[place + 8 : place + 8 + length]
        place += length + 12


def may_be_turned(file: BinaryIO) -> bool:
    """Return whether a PNG has EXIF, in which an orientation may stand; pixels are passed over unread."""
    file.seek(8)
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        words = file.read(min(length, len(PROFILE))) if kind in TEXTS else b""
        if kind == b"eXIf" or words == PROFILE:
            return True
        file.seek(length + 4 - len(words), os.SEEK_CUR)
    return False
