"""The maps and masks of a set of images: in memory where they are few, on disk where frames are large and many."""

import math
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike, NDArray

from train.data.disk_arrays import DiskArrays

IN_MEMORY = 1 << 30  # bytes; more than that are read from disk whenever they are looked at


class KeptMaps:
    """Takes `count` maps of `size` (height, width) in turn; `maps` (count, H, W) float32 has those that were taken.

    On disk they lie in the folder for temporary files (`TMPDIR`). Raises `UserError` where that has no room for them.
    """

    def __init__(self, count: int, size: tuple[int, int]) -> None:
        shape, self._taken = (count, *size), 0
        small = 4 * math.prod(shape) <= IN_MEMORY
        self._disk = None if small else _on_disk(shape, np.float32, "maps")
        self.maps: NDArray[np.float32] = np.empty(shape, np.float32) if self._disk is None else self._disk.whole

    def take(self, anomaly_map: NDArray[np.float32], score: float) -> float:
        """Keep the next map (H, W); return its `score`."""
        if self._disk is None:
            self.maps[self._taken] = anomaly_map
        else:
            self._disk.store(self._taken, anomaly_map)
        self._taken += 1
        return score


class KeptMasks:
    """Keeps at most `count` masks of `size` where their maps are kept: called with one it returns it as it is kept."""

    def __init__(self, count: int, size: tuple[int, int], on_disk: bool) -> None:
        self._taken = 0
        self._disk = _on_disk((count, *size), np.bool_, "masks") if on_disk and count else None

    def __call__(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return a mask (H, W) as it is kept."""
        if self._disk is None:
            return mask
        self._disk.store(self._taken, mask)
        kept: NDArray[np.bool_] = self._disk.whole[self._taken]
        self._taken += 1
        return kept


def _on_disk(shape: tuple[int, ...], dtype: DTypeLike, what: str) -> DiskArrays:
    return DiskArrays(shape, dtype, Path(tempfile.gettempdir()), what, "let TMPDIR name a folder with more room")
