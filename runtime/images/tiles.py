"""Tiles: how a large frame is cut into pieces that the network sees, and how their maps become one map again.

Small defects vanish where a frame of many megapixels is reduced to the network's size, so a tiled detector looks at
the frame's own pixels, a tile at a time. Neighbours overlap. Near its edge a tile's map is not like that of the whole
frame, for the network sees zeros beyond it; so a quarter of the overlap is dropped on each side of a seam, and over
the half between them one tile's map fades into the other's: every pixel's weights sum to 1, and no more than two
tiles along an axis have a say in it.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from runtime.common.errors import UserError
from runtime.common.text_table import plain_size
from runtime.images.pixels import LARGEST_SIDE

MOST_TILES = 4096
Pixel = TypeVar("Pixel", np.uint8, np.float32, np.bool_)


@dataclass(frozen=True)
class TileGrid:
    """A frame of (height, width) pixels, cut into tiles of (height, width), neighbours sharing `overlap` or more.

    The tiles of an axis are spread evenly, the first at its start and the last at its end; no pixel is without one and
    none beyond the frame is made up. Raises `UserError` for tiles that do not fit so.
    """

    frame: tuple[int, int]
    tile: tuple[int, int]
    overlap: int

    def __post_init__(self) -> None:
        if any(tile > side for tile, side in zip(self.tile, self.frame, strict=True)):
            found = f"tiles of {plain_size(self.tile)} pixels in a frame of {plain_size(self.frame)}"
            raise UserError("tiles must lie within the frame", found, "cut smaller ones")
        if not 0 <= 3 * self.overlap <= min(self.tile):
            bound = f"0 to {min(self.tile) // 3} pixels, a third of a tile's side"
            raise UserError(f"the overlap of tiles must be {bound}", str(self.overlap))
        if self.count > MOST_TILES:
            raise UserError(f"a frame must have at most {MOST_TILES} tiles", str(self.count), "cut larger ones")

    @cached_property
    def tops(self) -> tuple[int, ...]:
        """The first row of each row of tiles, ascending."""
        return _starts(self.frame[0], self.tile[0], self.overlap)

    @cached_property
    def lefts(self) -> tuple[int, ...]:
        """The first column of each column of tiles, ascending."""
        return _starts(self.frame[1], self.tile[1], self.overlap)

    @property
    def count(self) -> int:
        """How many tiles the frame has."""
        return len(self.tops) * len(self.lefts)

    def corners(self) -> Iterator[tuple[int, int]]:
        """Yield every tile's (top, left), row by row: the order of tiles everywhere."""
        return ((top, left) for top in self.tops for left in self.lefts)

    def pieces(self, pixels: NDArray[Pixel]) -> Iterator[NDArray[Pixel]]:
        """Yield the tiles of a frame or its map (H, W, ...) as views (h, w, ...), in the order of `corners`."""
        height, width = self.tile
        return (pixels[top : top + height, left : left + width] for top, left in self.corners())

    def cut(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the tiles of a frame (H, W, ...) as (count, h, w, ...)."""
        return np.stack(list(self.pieces(frame)))

    def row_weights(self) -> NDArray[np.float32]:
        """Return what each row of a tile's map counts, (rows of tiles, h); for a row of pixels they sum to 1."""
        return _weights(self.tops, self.tile[0], self.overlap)

    def column_weights(self) -> NDArray[np.float32]:
        """Return what each column of a tile's map counts, (columns of tiles, w)."""
        return _weights(self.lefts, self.tile[1], self.overlap)

    def blend(self, maps: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the frame's map (H, W) of the tiles' maps (count, h, w): the reference of what an engine does."""
        whole_map = np.zeros(self.frame, np.float32)
        weights = [rows[:, None] * columns for rows in self.row_weights() for columns in self.column_weights()]
        for place, weight, tile in zip(self.pieces(whole_map), weights, maps, strict=True):
            place += weight * tile
        return whole_map

    def __str__(self) -> str:
        rows, columns = len(self.tops), len(self.lefts)
        tile, frame = plain_size(self.tile), plain_size(self.frame)
        cut = f"{rows}x{columns} tiles of {tile} from frames of {frame} (height x width)"
        return f"{cut} that share {self.overlap} pixels or more"

    def to_json(self) -> dict[str, Any]:
        """Return a value that `json` can write and `from_json` reads back equal."""
        return {"frame": list(self.frame), "tile": list(self.tile), "overlap": self.overlap}

    @classmethod
    def from_json(cls, value: Any) -> "TileGrid":
        """Rebuild a grid. Raises `KeyError`, `TypeError` or `ValueError` for anything else."""
        try:
            return cls(_size(value["frame"]), _size(value["tile"]), _whole(value["overlap"]))
        except UserError as error:
            raise ValueError(str(error)) from None


def _size(value: Any) -> tuple[int, int]:
    height, width = (_whole(side) for side in value)
    if not 1 <= min(height, width) <= max(height, width) <= LARGEST_SIDE:
        raise ValueError(f"sides must be 1 to {LARGEST_SIDE} pixels, not {height}, {width}")
    return height, width


def _whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"a whole number of pixels was expected, found {value!r:.40}")
    return value


def _starts(side: int, tile: int, overlap: int) -> tuple[int, ...]:
    gaps = math.ceil((side - tile) / (tile - overlap))
    return tuple(gap * (side - tile) // gaps for gap in range(gaps + 1)) if gaps else (0,)


def _weights(starts: tuple[int, ...], tile: int, overlap: int) -> NDArray[np.float32]:
    """Each seam lies in the middle of what two neighbours share; over half of the least overlap they fade."""
    fade = overlap // 2
    weights = np.ones((len(starts), tile))
    for index in range(len(starts) - 1):
        first, second = starts[index], starts[index + 1]
        begin = (second + first + tile - fade) // 2  # of the fade, in pixels of the frame
        rising = np.clip((np.arange(starts[-1] + tile) - begin + 0.5) / max(fade, 1e-6), 0, 1)
        weights[index] *= 1 - rising[first : first + tile]
        weights[index + 1] *= rising[second : second + tile]
    return weights.astype(np.float32)
