"""Tiles of frames: what a tiled detector's network is calibrated and compared on, never frames made smaller.

Of a frame of many tiles some stand for all: other ones of the next frame, so that some images show every place.
"""

from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from runtime.engines.sidecar import INPUT_NAME
from runtime.images.pixels import Image8
from runtime.images.tiles import TileGrid

TILES_OF_A_FRAME = 8
Pixel = TypeVar("Pixel", bound=np.generic)
Place = tuple[int, int]  # a tile's row and column of tiles
Feed = dict[str, NDArray[np.generic]]  # a graph's inputs by name

PLACE_NAMES = ("tile_row", "tile_column")  # int64 [B], further inputs of a network that judges tiles


def places_of(grid: TileGrid) -> list[Place]:
    """Return the places of all tiles in their order."""
    return [(row, column) for row in range(len(grid.tops)) for column in range(len(grid.lefts))]


def some_places(grid: TileGrid, number: int) -> list[Place]:
    """Return at most `TILES_OF_A_FRAME` places for frame `number`, spread over it."""
    step = -(-grid.count // TILES_OF_A_FRAME)
    return places_of(grid)[number % step :: step]


def tile_of(frame: NDArray[Pixel], grid: TileGrid, place: Place) -> NDArray[Pixel]:
    """Return the tile at `place` of a frame or mask (H, W, ...), a copy."""
    top, left = grid.tops[place[0]], grid.lefts[place[1]]
    tile: NDArray[Pixel] = frame[top : top + grid.tile[0], left : left + grid.tile[1]].copy()
    return tile


def places_of_defect(mask: NDArray[np.bool_], grid: TileGrid) -> list[Place]:
    """Return at most `TILES_OF_A_FRAME` places whose tile shows a part of the marked defect (H, W)."""
    showing = [place for place in places_of(grid) if tile_of(mask, grid, place).any()]
    return showing[:: -(-len(showing) // TILES_OF_A_FRAME)] if showing else []


def feed(frames: NDArray[np.uint8], places: Sequence[Place] = ()) -> Feed:
    """Return the inputs of a graph: `frames` (B, H, W, 3), and the places of those that are tiles."""
    named: Feed = {INPUT_NAME: frames}
    if places:
        numbers = np.array(places, np.int64)
        named |= {name: np.ascontiguousarray(numbers[:, axis]) for axis, name in enumerate(PLACE_NAMES)}
    return named


def feeds_of(frame: Image8, grid: TileGrid | None, number: int) -> Iterator[Feed]:
    """Yield the inputs that frame `number` (H, W, 3) gives a network, one by one: itself, or `some_places` of it."""
    if grid is None:
        yield feed(frame[None])
        return
    for place in some_places(grid, number):
        yield feed(tile_of(frame, grid, place)[None], [place])
