"""Places of the picture that are always wrong: where false alarms have their highest positions again and again.

The map is cut into cells. A cell counts for a marked part where its frame has one of the highest positions of its map
there. Chance alone is taken to hit a given cell in one part of ten, far more than it does; a cell is always wrong where
so many parts hit it that chance would not do so in one log of a hundred, in any cell (binomial test, Bonferroni).
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from runtime.images.opencv import opencv
from runtime.improve.shares import by_chance

GRID = 32  # cells along the longer side of the map
SHARE = 0.01  # of a map's positions are its highest
HIGH = 0.5  # of a map's maximum, what they must have
AROUND = 0.03  # of a map's positions, around a part that was missed: its defect lies there, if anywhere
BY_CHANCE = 0.1  # of parts that hit a cell by chance
LUCK = 0.01  # that any cell of a log comes to be called so by chance
MOST = 0.1  # of the picture that may be left out

Cells = NDArray[np.bool_]


def cell_side(size: tuple[int, int]) -> int:
    """Return the side of a cell, in positions of a map of (height, width) `size`."""
    return max(1, round(max(size) / GRID))


def cells_of(positions: NDArray[np.bool_]) -> Cells:
    """Return the cells of a map in which any of the `positions` (H, W) lies."""
    side = cell_side((positions.shape[0], positions.shape[1]))
    height, width = (math.ceil(length / side) for length in positions.shape)
    padded = np.zeros((height * side, width * side), bool)
    padded[: positions.shape[0], : positions.shape[1]] = positions
    cells: Cells = np.asarray(padded.reshape(height, side, width, side).any(axis=(1, 3)), bool)
    return cells


def highest(anomaly_map: NDArray[np.float32], share: float = SHARE, at_least: float = HIGH) -> NDArray[np.bool_]:
    """Return where the highest `share` of a map's positions (H, W) are, with `at_least` so much of its maximum."""
    count = max(1, round(share * anomaly_map.size))
    bound = np.partition(anomaly_map.ravel(), anomaly_map.size - count)[anomaly_map.size - count]
    lowest = max(float(bound), at_least * float(anomaly_map.max()), float(np.finfo(np.float32).tiny))
    found: NDArray[np.bool_] = np.asarray(anomaly_map >= lowest)
    return found


def always_wrong(parts: Sequence[Cells]) -> tuple[Cells, int]:
    """Return the cells that are always wrong, of the cells that each false alarm hits; and how many parts hit any.

    At least one part is needed.
    """
    counts = np.sum(parts, axis=0)
    needed = fewest_of(len(parts), counts.size)
    found = counts >= needed
    return found, sum(bool((part & found).any()) for part in parts)


def fewest_of(parts: int, cells: int) -> int:
    """Return how many of so many parts must hit a cell, of so many cells; one more than there are: none can."""
    enough = (count for count in range(1, parts + 1) if by_chance(count, parts, BY_CHANCE) * cells <= LUCK)
    return next(enough, parts + 1)


def fewest_parts(cells: int) -> int:
    """Return how many parts are needed at least to tell anything, where all of them hit one cell."""
    return next(parts for parts in range(1, 100) if fewest_of(parts, cells) <= parts)


def spread(wrong: Cells, above: Sequence[Cells]) -> Cells:
    """Return the cells that a mask must take so that what lies at `wrong` raises no score: it shines around.

    That is `wrong` and its neighbours, and what hangs together with them of the cells that are above the map's
    threshold in half of the parts; `above` has those of each.
    """
    kernel = np.ones((3, 3), np.uint8)
    seeds: Cells = opencv().dilate(wrong.astype(np.uint8), kernel).astype(bool)
    often = seeds | (np.sum(above, axis=0) * 2 >= len(above))
    _, labels = opencv().connectedComponents(often.astype(np.uint8), connectivity=8)
    found: Cells = np.isin(labels, np.unique(labels[seeds]))
    return found


def rectangle(row: int, column: int, size: tuple[int, int], pixels: tuple[int, int]) -> tuple[slice, slice]:
    """Return the pixels of a frame of (height, width) `pixels` that a cell of a map of `size` lies over."""
    side = cell_side(size)
    ways = zip((row, column), size, pixels, strict=True)
    rows, columns = (
        slice(place * side * frame // of_map, min((place + 1) * side, of_map) * frame // of_map)
        for place, of_map, frame in ways
    )
    return rows, columns


def box_cells(box: tuple[float, float, float, float], frame: tuple[int, int], size: tuple[int, int]) -> Cells:
    """Return the cells under a box (x, y, width, height) of a frame of (height, width), of a map of `size`.

    A box that is larger than a mask may be does not tell where the defect in it is: of that it is the middle half of
    its width and height.
    """
    positions = np.zeros(size, bool)
    x, y, width, height = box
    if width * height > MOST * frame[0] * frame[1]:
        x, y, width, height = x + width / 4, y + height / 4, width / 2, height / 2
    top, bottom = (math.floor(y * size[0] / frame[0]), math.ceil((y + height) * size[0] / frame[0]))
    left, right = (math.floor(x * size[1] / frame[1]), math.ceil((x + width) * size[1] / frame[1]))
    positions[max(0, top) : bottom, max(0, left) : right] = True
    return cells_of(positions)
