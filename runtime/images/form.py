"""How a picture came: file format, chroma subsampling, quality, depth. The same part scores otherwise in another form.

JPEG of quality 90 with 4:2:0 against PNG, at the engine's own size, has moved scores by several spreads of good parts.
So training records the forms of its images, the sidecar keeps them, and the line says where its sources differ.
"""

import io
from collections.abc import Collection, Mapping
from functools import cache
from typing import Any

from PIL import Image, JpegImagePlugin

from runtime.images.bit_depth import is_sixteen_bit_colour, is_sixteen_bit_grey

FORM_KEY = "cflow form"  # of the text in a PNG that `runtime.capture` writes: how the frame came from its source
LOSSLESS = ("BMP", "PNG", "PPM", "TIFF")
SUBSAMPLING = {0: "4:4:4", 1: "4:2:2", 2: "4:2:0"}  # Pillow's numbers
LONGEST_FORM = 100  # characters
QUALITIES = range(10, 101, 10)
JPEG_IN_TIFF = ("jpeg", "tiff_jpeg")


def form_of(image: Image.Image) -> str:
    """Return the form of an open image file: "PNG, 8 bits", "JPEG 4:2:0, quality 90", what a capture says of itself."""
    stated = image.info.get(FORM_KEY)
    if isinstance(stated, str) and stated.isprintable():
        return stated[:LONGEST_FORM]
    if image.format in ("JPEG", "MPO"):
        return _jpeg(image)
    if image.format == "TIFF" and image.info.get("compression") in JPEG_IN_TIFF:
        return "TIFF with JPEG"
    if image.format == "WEBP":
        return "WebP"
    deep = is_sixteen_bit_grey(image) or is_sixteen_bit_colour(image)
    return f"{image.format}, {16 if deep else 8} bits"


def is_known(form: str, trained_on: Collection[str]) -> bool:
    """Whether `form` is one of those `trained_on`; lossless formats of one depth are the same pixels."""
    return _kind(form) in {_kind(other) for other in trained_on}


def describe(forms: Mapping[str, int]) -> str:
    """Return forms with their numbers of images in words, the most frequent first."""
    return ", ".join(f"{form} ({count})" for form, count in sorted(forms.items(), key=lambda item: -item[1]))


def _kind(form: str) -> str:
    name, comma, depth = form.partition(",")
    return f"lossless{comma}{depth}" if name in LOSSLESS else form


def _jpeg(image: Image.Image) -> str:
    subsampling = SUBSAMPLING.get(JpegImagePlugin.get_sampling(image), "grey" if image.mode == "L" else "other")
    tables: Any = getattr(image, "quantization", {})
    return f"JPEG {subsampling}, quality {_quality(tuple(tables[0]))}" if 0 in tables else f"JPEG {subsampling}"


@cache
def _quality(table: tuple[int, ...]) -> int:
    """Return the quality, in tens, whose luminance table is nearest; a camera's own tables have one too."""
    return min(QUALITIES, key=lambda quality: sum(abs(a - b) for a, b in zip(table, _table(quality), strict=False)))


@cache
def _table(quality: int) -> tuple[int, ...]:
    buffer = io.BytesIO()
    Image.new("L", (8, 8)).save(buffer, "JPEG", quality=quality)
    with Image.open(buffer) as image:
        tables: Any = getattr(image, "quantization", {})
        return tuple(tables[0])
