"""Pixel formats of industrial cameras (GenICam's PFNC): packed samples are unpacked, Bayer mosaics become colours.

Samples of more than 8 bits are scaled by the rule for files (`runtime.images.bit_depth`), white being the largest value
that the format's bits hold. A mosaic is scaled first and then turned into colours by OpenCV's bilinear method.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from runtime.common.errors import UserError
from runtime.images.bit_depth import FULL_SCALE, grey_to_8_bits
from runtime.images.opencv import opencv

# how samples lie in bytes: one a byte, one in two bytes (the low byte first), two in three bytes with the high 8 bits
# of each in a byte of its own (GigE Vision's "Packed"), or one after the other with the lowest bit first ("p")
Packing = Literal["bytes", "words", "packed", "p"]


@dataclass(frozen=True)
class PixelFormat:
    """A format by its name; `bits` mean something in a sample, which takes `stored_bits` of memory.

    `colours` is the mosaic's first two pixels of its first row ("RG"), "RGB" or "BGR" where each pixel has all three,
    or empty for grey.
    """

    name: str
    bits: int
    packing: Packing
    colours: str = ""

    @property
    def stored_bits(self) -> int:
        """Bits that one pixel takes."""
        channels = 3 if len(self.colours) == 3 else 1
        return channels * {"bytes": 8, "words": 16, "packed": 12, "p": self.bits}[self.packing]


def _formats() -> dict[int, PixelFormat]:
    """Return every format that can be read, by its number in PFNC."""
    grey: dict[int, tuple[int, Packing]] = {
        0x01080001: (8, "bytes"),
        0x01100003: (10, "words"),
        0x01100005: (12, "words"),
        0x01100025: (14, "words"),
        0x01100007: (16, "words"),
        0x010C0004: (10, "packed"),
        0x010C0006: (12, "packed"),
        0x010A0046: (10, "p"),
        0x010C0047: (12, "p"),
    }
    # the four mosaics of a depth, GR, RG, GB and BG, mostly have numbers that follow each other
    mosaics: dict[int, tuple[int, Packing]] = {
        0x01080008: (8, "bytes"),
        0x0110000C: (10, "words"),
        0x01100010: (12, "words"),
        0x0110002E: (16, "words"),
        0x010C0026: (10, "packed"),
        0x010C002A: (12, "packed"),
    }
    lowest_bit_first = {"BG": (0x52, 0x53), "GB": (0x54, 0x55), "GR": (0x56, 0x57), "RG": (0x58, 0x59)}
    found = {code: PixelFormat(_name("Mono", *kind), *kind) for code, kind in grey.items()}
    for first, kind in mosaics.items():
        for step, colours in enumerate(("GR", "RG", "GB", "BG")):
            found[first + step] = PixelFormat(_name(f"Bayer{colours}", *kind), *kind, colours)
    for colours, (ten, twelve) in lowest_bit_first.items():
        found[0x010A0000 + ten] = PixelFormat(f"Bayer{colours}10p", 10, "p", colours)
        found[0x010C0000 + twelve] = PixelFormat(f"Bayer{colours}12p", 12, "p", colours)
    found[0x02180014] = PixelFormat("RGB8", 8, "bytes", "RGB")
    found[0x02180015] = PixelFormat("BGR8", 8, "bytes", "BGR")
    return found


def _name(kind: str, bits: int, packing: Packing) -> str:
    return f"{kind}{bits}" + {"packed": "Packed", "p": "p"}.get(packing, "")


FORMATS = _formats()


def format_of(code: int) -> PixelFormat:
    """Return the format of PFNC's number `code`. Raises `UserError` for one that cannot be read here."""
    if code not in FORMATS:
        cure = "choose Mono8 to Mono16, BayerXX8 to BayerXX16, RGB8 or BGR8 by --camera-format; packed ones too"
        raise UserError("a camera's pixel format must be one of those that can be read", f"{code:#010x}", cure)
    return FORMATS[code]


def decode(data: bytes, kind: PixelFormat, size: tuple[int, int], white: int = FULL_SCALE) -> NDArray[np.uint8]:
    """Return a camera's bytes as uint8: grey (H, W), or BGR (H, W, 3); `size` is (width, height).

    `white` is that of samples of 16 bits, which may mean fewer. Rows of packed samples follow each other at once, or
    each begins with a byte: the number of bytes tells. Raises `UserError` for another number, and for samples above
    white.
    """
    width, height = size
    rows, length = (1, width * height) if _follow_at_once(len(data), kind, size) else (height, width)
    raw = np.frombuffer(data, np.uint8).reshape(rows, -1)
    if len(kind.colours) == 3:
        pixels = raw.reshape(height, width, 3)
        return pixels if kind.colours == "BGR" else np.asarray(opencv().cvtColor(pixels, opencv().COLOR_RGB2BGR))
    samples = UNPACK[kind.packing](raw, kind.bits, length).reshape(height, width)
    if kind.bits > 8:
        samples = grey_to_8_bits(samples, white if kind.bits == 16 else (1 << kind.bits) - 1, inverted=False)
    return np.asarray(opencv().cvtColor(samples, _mosaic_code(kind.colours))) if kind.colours else samples


def _follow_at_once(found: int, kind: PixelFormat, size: tuple[int, int]) -> bool:
    width, height = size
    at_once, by_row = -(-width * height * kind.stored_bits // 8), height * -(-width * kind.stored_bits // 8)
    if found not in (at_once, by_row):
        expected = f"a frame of {width}x{height} pixels in {kind.name} must have {at_once} bytes"
        raise UserError(expected, str(found), "switch off chunk data and line padding in the camera")
    return found == at_once


def _bytes(raw: NDArray[np.uint8], bits: int, length: int) -> NDArray[Any]:
    return raw


def _words(raw: NDArray[np.uint8], bits: int, length: int) -> NDArray[Any]:
    return raw.view("<u2").astype(np.uint16, copy=False)


def _packed(raw: NDArray[np.uint8], bits: int, length: int) -> NDArray[Any]:
    """Two samples in three bytes: the high 8 bits of the first, the low bits of both, the high 8 bits of the second."""
    triples = _whole_groups(raw, 3)
    low = bits - 8
    first = triples[:, :, 0].astype(np.uint16) << low | triples[:, :, 1] & (1 << low) - 1
    second = triples[:, :, 2].astype(np.uint16) << low | triples[:, :, 1] >> 4 & (1 << low) - 1
    return np.stack((first, second), axis=2).reshape(len(raw), -1)[:, :length]


def _lowest_bit_first(raw: NDArray[np.uint8], bits: int, length: int) -> NDArray[Any]:
    """Samples one after the other without a gap: four of 10 bits in five bytes, two of 12 bits in three."""
    group_bytes = {10: 5, 12: 3}[bits]
    groups = _whole_groups(raw, group_bytes).astype(np.uint16)
    samples = []
    for number in range(8 * group_bytes // bits):
        byte, shift = divmod(number * bits, 8)
        samples.append((groups[:, :, byte] >> shift | groups[:, :, byte + 1] << 8 - shift) & (1 << bits) - 1)
    return np.stack(samples, axis=2).reshape(len(raw), -1)[:, :length]


def _whole_groups(raw: NDArray[np.uint8], group_bytes: int) -> NDArray[np.uint8]:
    """Return rows of bytes as (rows, groups, bytes of a group), the last group filled up with zeros."""
    lacking = -raw.shape[1] % group_bytes
    filled = np.pad(raw, ((0, 0), (0, lacking))) if lacking else raw
    return filled.reshape(len(raw), -1, group_bytes)


UNPACK: dict[Packing, Callable[[NDArray[np.uint8], int, int], NDArray[Any]]] = {
    "bytes": _bytes,
    "words": _words,
    "packed": _packed,
    "p": _lowest_bit_first,
}


@cache
def _mosaic_code(colours: str) -> int:
    cv2 = opencv()
    # OpenCV names a mosaic by the second row's second and third pixel, PFNC by the first row's first two
    names = {"RG": cv2.COLOR_BayerBG2BGR, "GR": cv2.COLOR_BayerGB2BGR, "GB": cv2.COLOR_BayerGR2BGR}
    return int(names.get(colours, cv2.COLOR_BayerRG2BGR))
