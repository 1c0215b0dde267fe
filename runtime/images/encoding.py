"""How pictures came: kind of file or device, codec, colour subsampling, quality, depth. Each of them moves scores.

A detector trained on PNG and judging JPEG with halved colours sees other pictures, though nobody sees a difference.
So training notes the `Encoding` of its images, and every source has its own (`runtime.sources.frame.Source`).
"""

import contextlib
import json
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO, Literal, get_args

import numpy as np
from PIL import Image, JpegImagePlugin, PngImagePlugin

from runtime.images.bit_depth import is_sixteen_bit_colour, is_sixteen_bit_grey, stated_bits
from runtime.images.size_limit import open_image

EncodingKind = Literal["file", "video", "camera", "stream"]
STAMP = "cflow encoding"  # of a PNG's text that `runtime.capture` writes: how the frame came, as JSON
LOSSLESS = frozenset({"BMP", "PNG", "PPM", "TIFF"})
LIKE_QUALITY = 5  # of JPEGs
SAMPLINGS = {0: "4:4:4", 1: "4:2:2", 2: "4:2:0"}  # by Pillow's numbers
# the luminance table of the JPEG standard's annex K, in zigzag order or not: only its mean is used
STANDARD_TABLE_MEAN = 57.625


@dataclass(frozen=True)
class Encoding:
    """How one picture was encoded on its way here; "" and None: not known.

    `kind` is where it came from, `codec` the file's format ("JPEG", "PNG") or the fourcc of a video's or camera's
    codec ("h264", "MJPG"), `pixels` the decoder's pixel format as a fourcc ("I420": 4:2:0) or Pillow's mode,
    `subsampling` a JPEG's ("4:2:0"), `quality` a JPEG's of 1 to 100 (a whole number near what it was written with),
    `bits` a sample's, `colour_range` "full" or "limited".
    """

    kind: EncodingKind
    codec: str = ""
    pixels: str = ""
    subsampling: str = ""
    quality: int | None = None
    bits: int | None = None
    colour_range: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return what is known, as JSON can hold it."""
        return {name: value for name, value in asdict(self).items() if value not in ("", None)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Encoding":
        """Rebuild it. Raises `KeyError`, `TypeError` or `ValueError` for anything else."""
        if value["kind"] not in get_args(EncodingKind):
            raise ValueError(f"kind must be one of {', '.join(get_args(EncodingKind))}, not {value['kind']!r}")
        for field in fields(cls):
            given = value.get(field.name)
            wanted = int if field.name in ("quality", "bits") else str
            if given is not None and (not isinstance(given, wanted) or isinstance(given, bool)):
                raise TypeError(f"{field.name} must be {wanted.__name__}, not {given!r}")
        return cls(**value)

    def same_pixels(self, other: "Encoding") -> bool:
        """Whether the same scene gives the same pixels in both, as far as is known.

        Lossless files of one depth do; JPEG only with the same subsampling at a like quality; others only where nothing
        that is known differs.
        """
        if self.codec in LOSSLESS and other.codec in LOSSLESS:
            return ((self.bits or 8) > 8) == ((other.bits or 8) > 8)
        alike = abs((self.quality or 0) - (other.quality or 0)) <= LIKE_QUALITY
        return alike and self._known() == other._known()

    def _known(self) -> tuple[str, ...]:
        pixels = "" if self.kind == "file" else self.pixels  # a file's is Pillow's mode: grey or colours
        return self.kind, self.codec, pixels, self.subsampling, self.colour_range

    def describe(self) -> str:
        """Return it for a person: "JPEG 4:2:0 quality 90, 8 bits"."""
        quality = f"quality {self.quality}" if self.quality else ""
        words = (self.codec or self.kind, self.subsampling or self.pixels, quality)
        said = " ".join(word for word in words if word)
        return f"{said}, {self.bits} bits" if self.bits else said


def encoding_of(source: str | Path | BinaryIO) -> Encoding | None:
    """Return how an image file (or its open content) is encoded, from its head; None where that cannot be read."""
    try:
        with open_image(source) as image:
            return _encoding(image)
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, struct.error):
        return None  # who reads the pixels says what is wrong


def stamp(encoding: Encoding) -> PngImagePlugin.PngInfo:
    """Return what a PNG of a frame shall say of how the frame came, for `encoding_of` to find."""
    text = PngImagePlugin.PngInfo()
    text.add_text(STAMP, json.dumps(encoding.to_json()))
    return text


def _stamped(image: Image.Image) -> Encoding | None:
    text = image.info.get(STAMP)
    if not isinstance(text, str):
        return None
    with contextlib.suppress(KeyError, TypeError, ValueError, RecursionError):
        return Encoding.from_json(json.loads(text))
    return None


def _encoding(image: Image.Image) -> Encoding:
    if (stamped := _stamped(image)) is not None:
        return stamped
    deep = is_sixteen_bit_grey(image) or is_sixteen_bit_colour(image)
    bits = (stated_bits(image) or 16) if deep else 1 if image.mode == "1" else 8
    packed = image.format == "TIFF" and image.info.get("compression") in ("jpeg", "tiff_jpeg")
    codec = "TIFF of JPEG" if packed else image.format or ""
    known = {"kind": "file", "codec": codec, "pixels": image.mode, "bits": bits, "colour_range": "full"}
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        known |= {"subsampling": SAMPLINGS.get(JpegImagePlugin.get_sampling(image), ""), "quality": _quality(image)}
    return Encoding(**known)  # type: ignore[arg-type]


def _quality(image: JpegImagePlugin.JpegImageFile) -> int | None:
    """Return the quality whose table, in libjpeg's scale, is as coarse as the image's; None without a table."""
    table = image.quantization.get(0)
    if not table:
        return None
    if max(table) <= 1:
        return 100
    scale = 100 * float(np.mean(table)) / STANDARD_TABLE_MEAN
    quality = (200 - scale) / 2 if scale <= 100 else 5000 / scale
    return min(100, max(1, round(quality)))


def fourcc_text(code: float) -> str:
    """Return OpenCV's number of a codec or pixel format as text; "" for none."""
    number = int(code)
    text = "".join(chr(number >> shift & 255) for shift in (0, 8, 16, 24)) if number > 0 else ""
    return "".join(letter for letter in text if letter.isalnum())


def encoding_of_capture(capture: Any, kind: EncodingKind) -> Encoding:
    """Return how an OpenCV capture's pictures come, as far as its driver says."""
    from runtime.images.opencv import opencv

    cv2 = opencv()
    pixels = fourcc_text(capture.get(cv2.CAP_PROP_CODEC_PIXEL_FORMAT))
    return Encoding(kind, fourcc_text(capture.get(cv2.CAP_PROP_FOURCC)), pixels)
