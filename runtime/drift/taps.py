"""Which tap's map has changed, told from the anomaly map alone, which is the sum of all taps'.

A tap's map is (h, w) on a grid of its own and enlarged linearly: it bends at the lines of that grid and nowhere else.
Grids of different sizes share no inner line, but for a few: so the bends at a tap's lines are its own, and a product
with one matrix takes them out of the sum exactly. Their mean size is the roughness of what the tap says. A map's level
cannot be told apart, for it bends nowhere.
"""

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from runtime.drift.numbers import TAP
from runtime.images.interpolation import interpolation

EXACT = 1e-6  # by which a row of a matrix may see other taps
LARGEST_ROW = 100.0  # of a row's norm, which multiplies the map's rounding (1e-7)


def roughness(anomaly_map: NDArray[np.float32], grids: Mapping[str, int]) -> dict[str, float]:
    """Return the roughness of each tap of a map (H, W), by "tap NAME"; `grids` has the rows of each tap's grid.

    Taps on one grid are told together, and one whose lines are all those of another is left out.
    """
    together: dict[int, list[str]] = {}
    for name, rows in grids.items():
        if rows <= len(anomaly_map):  # none of ours is finer than the map
            together.setdefault(rows, []).append(name)
    matrices = _bends(len(anomaly_map), tuple(together))
    taken = zip(together.values(), matrices, strict=True)
    return {TAP + "+".join(names): float(np.abs(rows @ anomaly_map).mean()) for names, rows in taken if len(rows)}


@lru_cache(maxsize=16)
def _bends(pixels: int, grids: tuple[int, ...]) -> tuple[NDArray[np.float32], ...]:
    """Return for each grid the matrix (lines, pixels) that gives its bends from a column of the sum of all."""
    if not grids:
        return ()
    wide = [interpolation(pixels, rows) for rows in grids]
    inverse = np.linalg.pinv(np.hstack(wide))
    starts = np.cumsum([0, *grids])
    found = []
    for place, rows in enumerate(grids):
        bend = np.diff(np.eye(rows), 2, axis=0)
        matrix = bend @ inverse[starts[place] : starts[place + 1]]
        wanted = [bend if other == place else np.zeros((len(bend), grids[other])) for other in range(len(grids))]
        error = np.abs(matrix @ np.hstack(wide) - np.hstack(wanted)).max(1, initial=0.0)
        own = (error < EXACT) & (np.linalg.norm(matrix, axis=1) < LARGEST_ROW)
        found.append(matrix[own].astype(np.float32))
    return tuple(found)
