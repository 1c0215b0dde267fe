"""How frames are cut into tiles, as a command line asks for it: `--tiles 512`, `--tiles 3x4`, or `auto`.

Below 32 both numbers of `AxB` count tiles (rows x columns); from 32 on they are a tile's pixels (height x width).

`auto` chooses by the smallest defect. A network judges its finest features every 8 pixels, so a defect should keep
about as many: where it has a multiple of them frames are reduced by that whole factor, which saves its square in time;
where it has fewer nothing is reduced, and nothing is ever enlarged.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from export.model.checkpoint import LARGEST_AREA
from runtime.common.errors import UserError
from runtime.common.notices import say_once
from runtime.common.text_table import plain_size
from runtime.images.folders import evenly_spread
from runtime.images.pixels import LARGEST_SIDE
from runtime.images.preprocess import ReadOptions, read_size
from runtime.images.tiles import TileGrid
from train.data.input_size import AUTO, LOOKED_AT, SMALLEST_SIDE, choose_size

Size = tuple[int, int]
KEPT_PIXELS = 8  # of the smallest defect: from one judged position of the finest features to the next
AUTO_SIDE = 512  # pixels: of auto's tiles
OVERLAP = 8  # one part in so many of a tile's shorter side is shared, where nothing else is said
FORMS = "512, HEIGHTxWIDTH in pixels (32 or more), ROWSxCOLUMNS of tiles (below 32), or auto"


@dataclass(frozen=True)
class TileRequest:
    """What the command line says of tiles; all but `tiles` may be left out. `stride` is the coarsest tap's.

    Raises `UserError` for what cannot be meant: before any image is looked at.
    """

    tiles: str
    size: str
    stride: int
    overlap: int | None = None
    smallest_defect: str | None = None
    pixel_size: str | None = None

    def __post_init__(self) -> None:
        if self.tiles == AUTO:
            if self.smallest_defect is None:
                cure = "e.g. --smallest-defect 5px, or 0.2mm with --pixel-size 0.05mm"
                raise UserError("--tiles auto needs the smallest defect that must be found", "none", cure)
            if self.size != AUTO:
                raise UserError(
                    "--tiles auto chooses the frames' size itself", f"--size {self.size:.40}", "leave it out"
                )
            defect_pixels(self.smallest_defect, self.pixel_size)
        elif self.smallest_defect is not None or self.pixel_size is not None:
            raise UserError(
                "--smallest-defect and --pixel-size are what --tiles auto chooses by", f"--tiles {self.tiles:.40}"
            )
        else:
            parse_tiles(self.tiles, self.stride)

    def choose(self, paths: Sequence[Path], read: ReadOptions) -> tuple[Size, TileGrid | None]:
        """Return the network's input size and how frames like `paths` are cut; None where one input takes all.

        Says what was chosen. Raises `UserError` naming an image that cannot be read, or for tiles that do not fit.
        """
        frame = frame_size(self.size, paths, self.stride, read)
        if self.tiles == AUTO:
            return self._by_defect(frame)
        given = parse_tiles(self.tiles, self.stride)
        by_count = max(given) < SMALLEST_SIDE
        grid = _counted(frame, given, self.stride, self.overlap) if by_count else self._grid(frame, given)
        say_once(str(grid))
        return grid.tile, grid

    def _grid(self, frame: Size, tile: Size) -> TileGrid:
        return TileGrid(frame, tile, min(tile) // OVERLAP if self.overlap is None else self.overlap)

    def _by_defect(self, frame: Size) -> tuple[Size, TileGrid | None]:
        assert self.smallest_defect is not None
        defect = defect_pixels(self.smallest_defect, self.pixel_size)
        factor = max(1, int(defect // KEPT_PIXELS))
        reduced = (max(1, round(frame[0] / factor)), max(1, round(frame[1] / factor)))
        has = f"the smallest defect has {defect:g} pixels of a frame of {plain_size(frame)}"
        kept = f"{has}, and keeps {defect / factor:.3g}"
        why = f"{kept} ({KEPT_PIXELS} are judged together)"
        tile = (_side_within(reduced[0], self.stride), _side_within(reduced[1], self.stride))
        if max(reduced) <= AUTO_SIDE:
            say_once(f"no tiles are needed: {why}, where all of it is reduced to {plain_size(tile)}")
            return tile, None
        grid = self._grid(reduced, tile)
        say_once(f"{grid}: {why}")
        return tile, grid


def parse_tiles(text: str, stride: int) -> Size:
    """Read `512`, `512x640` or `3x4`. Raises `UserError` for else, and for pixels that are no multiple of `stride`."""
    sides = (
        [int(side) for side in text.lower().split("x")]
        if re.fullmatch(r"[0-9]{1,5}(x[0-9]{1,5})?", text.lower())
        else []
    )
    first, second = (sides[0], sides[-1]) if sides else (0, 0)
    counts = len(sides) == 2 and min(sides) >= 1 and max(sides) < SMALLEST_SIDE
    if not counts and not SMALLEST_SIDE <= min(first, second) <= max(first, second) <= LARGEST_SIDE:
        raise UserError(f"--tiles must be {FORMS}", repr(text[:40]))
    if not counts and (first % stride or second % stride):
        near = "x".join(str(max(1, round(side / stride)) * stride) for side in (first, second))
        raise UserError(f"the sides of tiles must be multiples of {stride} pixels", text, f"--tiles {near}")
    return first, second


def defect_pixels(defect: str, pixel_size: str | None) -> float:
    """Return how many pixels `5px` or `0.2mm` are, with pixels of `pixel_size` (`0.05mm`, `50um`)."""
    length, unit = _measure("--smallest-defect", defect, ("px", "mm", "um"), "5px or 0.2mm")
    if unit == "px":
        if pixel_size is not None:
            raise UserError(
                "--pixel-size is for a defect in mm or um", f"--smallest-defect {defect:.40}", "leave it out"
            )
        return length
    if pixel_size is None:
        raise UserError("--smallest-defect in mm or um needs --pixel-size", "none", "e.g. --pixel-size 0.05mm")
    each, each_unit = _measure("--pixel-size", pixel_size, ("mm", "um"), "0.05mm or 50um")
    in_um = {"mm": 1000.0, "um": 1.0}
    return length * in_um[unit] / (each * in_um[each_unit])


def _measure(option: str, text: str, units: Sequence[str], example: str) -> tuple[float, str]:
    found = re.fullmatch(rf"([0-9]{{1,6}}(?:\.[0-9]{{1,6}})?)({'|'.join(units)})", text.lower())
    if found is None or float(found[1]) == 0:
        raise UserError(f"{option} must be a length such as {example}", repr(text[:40]))
    return float(found[1]), found[2]


def frame_size(text: str, paths: Sequence[Path], stride: int, read: ReadOptions) -> Size:
    """Return the (height, width) that frames are judged in: for `auto` the images' own, of several kinds the median."""
    if text.lower() != AUTO:
        return choose_size(text, paths, stride, read)
    if not paths:
        raise UserError("tiles are cut from frames, and training needs at least 2 good ones", "none")
    sizes = np.array([read_size(paths[index], read.max_pixels) for index in evenly_spread(len(paths), LOOKED_AT)])
    height, width = (int(side) for side in np.median(sizes, axis=0).round())
    if (sizes != sizes[0]).any():
        say_once(
            f"images are of different sizes, and are resized to {height}x{width}, the median; --size names another"
        )
    if height * width > LARGEST_AREA:
        expected = f"frames must have at most {LARGEST_AREA} pixels"
        raise UserError(expected, f"{height}x{width}", "--size HEIGHTxWIDTH reduces them")
    return height, width


def _counted(frame: Size, counts: Size, stride: int, overlap: int | None) -> TileGrid:
    """Return the smallest tiles, multiples of `stride`, of which `counts` (rows, columns) cover `frame`."""
    if overlap is None:
        overlap = min(side // count for side, count in zip(frame, counts, strict=True)) // OVERLAP
    sides = [-(-(side + (n - 1) * overlap) // n) for side, n in zip(frame, counts, strict=True)]
    height, width = (-(-side // stride) * stride for side in sides)
    grid = TileGrid(frame, (height, width), overlap)
    if (found := (len(grid.tops), len(grid.lefts))) != counts:
        cut = f"a frame of {plain_size(frame)} must be cut into {plain_size(counts)} tiles"
        expected = f"{cut} whose sides are multiples of {stride}"
        raise UserError(
            expected, f"{plain_size(found)} of {plain_size(grid.tile)}", f"--tiles {plain_size(found)}, or name pixels"
        )
    return grid


def _side_within(side: int, stride: int) -> int:
    """Return a tile's side: `AUTO_SIDE`, or the largest multiple of `stride` within a frame's side."""
    return max(stride, min(AUTO_SIDE, side) // stride * stride)
