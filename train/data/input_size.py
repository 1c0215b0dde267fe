"""The input size that a command line asks for: given, or chosen from the images' own shape (`auto`)."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from export.model.encoder import ENCODERS
from runtime.common.errors import UserError
from runtime.common.notices import say_once
from runtime.images.preprocess import ReadOptions, read_with

AUTO = "auto"
SMALLEST_SIDE = 32  # pixels
FEWEST_CELLS = 4  # of the coarsest tap along a side: with fewer a position says nothing
BUDGET_SIDE = 256  # pixels: auto has as many pixels as a square of this side
LOOKED_AT = 64  # images, evenly spread
TURNED = (5, 6, 7, 8)  # orientations of EXIF that exchange width and height
ORIENTATION = 0x0112
ROOM = 1.15  # of the budget, for sides that are multiples


def parse_size(text: str) -> tuple[int, int]:
    """Read `256` or `HEIGHTxWIDTH` as (height, width) in pixels, each at least 32."""
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.isdecimal() and int(side) >= SMALLEST_SIDE for side in sides):
        raise UserError(f"--size must be 256 or HEIGHTxWIDTH, each side at least {SMALLEST_SIDE}", repr(text))
    return int(sides[0]), int(sides[-1])


def check_size(text: str) -> None:
    """Raise `UserError` unless `text` is a size, `auto` or `auto:SIDE`: before any image is looked at."""
    kind, _, side = text.lower().partition(":")
    if kind != AUTO:
        parse_size(text)
    elif text.lower() != AUTO and not (side.isdecimal() and int(side) >= SMALLEST_SIDE):
        raise UserError(f"--size auto:SIDE needs a side of {SMALLEST_SIDE} pixels or more, as auto:512", repr(text))


def coarsest_stride(encoder: str, taps: Sequence[str]) -> int:
    """Return the largest stride of an encoder's taps."""
    return max(ENCODERS[encoder].taps[tap].stride for tap in taps)


def choose_size(text: str, paths: Sequence[Path], stride: int, read: ReadOptions) -> tuple[int, int]:
    """Return the (height, width) in pixels that `text` asks for with images like `paths`; say what `auto` chose.

    `auto` has the median shape of the images, and as many pixels as 256 x 256 (`auto:512`: as 512 x 512), in sides
    that are multiples of `stride`, the coarsest tap's. Raises `UserError` naming an image that cannot be read.
    """
    check_size(text)
    kind, _, side = text.lower().partition(":")
    if kind != AUTO or not paths:
        return (BUDGET_SIDE, BUDGET_SIDE) if kind == AUTO else parse_size(text)
    budget = int(side or BUDGET_SIDE)
    shape = _median_shape(paths, read)
    height, width = size_of_shape(shape, budget, stride)
    say_once(
        f"size {height}x{width} (height x width): the images are {shape:.2f} times as wide as high (median), "
        f"about {budget}x{budget} pixels, multiples of {stride}; --size {budget} for a square"
    )
    return height, width


def size_of_shape(shape: float, budget: int, stride: int) -> tuple[int, int]:
    """Return (height, width), multiples of `stride`, whose width / height is near `shape` and area near `budget`².

    No side is below `SMALLEST_SIDE` or `FEWEST_CELLS` strides, whatever the shape.
    """
    first = stride * math.ceil(max(SMALLEST_SIDE, FEWEST_CELLS * stride) / stride)
    sides = range(first, max(first, int(ROOM * budget * budget) // first) + 1, stride)
    smallest = [(first, first)]
    fitting = [(h, w) for h in sides for w in sides if h * w <= ROOM * budget * budget] or smallest

    def misfit(size: tuple[int, int]) -> tuple[float, int]:
        height, width = size
        of_shape, of_area = math.log(width / height / shape), math.log(height * width / budget**2)
        return round(abs(of_shape) + abs(of_area), 9), height * width  # of equal ones the smaller

    return min(fitting, key=misfit)


def _median_shape(paths: Sequence[Path], read: ReadOptions) -> float:
    """Return the median of width / height over a sample of the images, as they are seen upright."""
    chosen = np.unique(np.linspace(0, len(paths) - 1, min(LOOKED_AT, len(paths))).round().astype(int))
    return float(np.median([read_with(paths[i], _shape, max_pixels=read.max_pixels) for i in chosen]))


def _shape(image: Image.Image) -> float:
    width, height = image.size
    return height / width if image.getexif().get(ORIENTATION) in TURNED else width / height
