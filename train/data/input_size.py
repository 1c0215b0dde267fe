"""The input size that a command line asks for: given, or chosen from the images' own shape (`auto`)."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from export.model.checkpoint import LARGEST_AREA
from export.model.encoder import ENCODERS
from runtime.common.errors import UserError
from runtime.common.notices import say_once
from runtime.images.folders import evenly_spread
from runtime.images.pixels import LARGEST_SIDE
from runtime.images.preprocess import ReadOptions, read_size

AUTO = "auto"
SMALLEST_SIDE = 32  # pixels
LARGEST_BUDGET = 4096  # pixels: of the side of auto's square
FEWEST_CELLS = 4  # of the coarsest tap along a side: with fewer a position says nothing
BUDGET_SIDE = 256  # pixels: auto has as many pixels as a square of this side
LOOKED_AT = 64  # images, evenly spread
ROOM = 1.15  # of the budget, for sides that are multiples


def parse_size(text: str) -> tuple[int, int]:
    """Read `256` or `HEIGHTxWIDTH` as (height, width) in pixels. Raises `UserError` for what no checkpoint may have."""
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(map(_is_side, sides)) or int(sides[0]) * int(sides[-1]) > LARGEST_AREA:
        bounds = f"each side {SMALLEST_SIDE} to {LARGEST_SIDE} pixels, at most {LARGEST_AREA} in all"
        raise UserError(f"--size must be 256 or HEIGHTxWIDTH, {bounds}", _shown(text))
    return int(sides[0]), int(sides[-1])


def _is_side(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 5 and SMALLEST_SIDE <= int(text) <= LARGEST_SIDE


def _shown(text: str) -> str:
    return repr(text[:40])


def check_size(text: str) -> None:
    """Raise `UserError` unless `text` is a size, `auto` or `auto:SIDE`: before any image is looked at."""
    kind, _, side = text.lower().partition(":")
    if kind != AUTO:
        parse_size(text)
    elif text.lower() != AUTO and not (_is_side(side) and int(side) <= LARGEST_BUDGET):
        bounds = f"{SMALLEST_SIDE} to {LARGEST_BUDGET} pixels, as auto:512"
        raise UserError(f"--size auto:SIDE needs a side of {bounds}", _shown(text))


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
    most = int(ROOM * budget * budget)
    sides = range(first, max(first, most // first) + 1, stride)
    fitting = [(h, w) for h in sides for w in range(first, most // h + 1, stride)] or [(first, first)]

    def misfit(size: tuple[int, int]) -> tuple[float, int]:
        height, width = size
        of_shape, of_area = math.log(width / height / shape), math.log(height * width / budget**2)
        return round(abs(of_shape) + abs(of_area), 9), height * width  # of equal ones the smaller

    return min(fitting, key=misfit)


def _median_shape(paths: Sequence[Path], read: ReadOptions) -> float:
    """Return the median of width / height over a sample of the images, as they are seen upright."""
    sizes = [read_size(paths[index], read.max_pixels) for index in evenly_spread(len(paths), LOOKED_AT)]
    return float(np.median([width / height for height, width in sizes]))
