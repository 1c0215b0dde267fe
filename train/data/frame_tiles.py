"""Tiles of large frames by index, read from disk: what is in memory does not grow with the frames.

A frame is decoded once, resized where it is not of the size that is judged, and written as it is, 3 bytes a pixel,
into a file without a name beside what is trained: it goes with the process, also with one that is killed. A tile is
then read from there alone. Several processes have such a file each.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from export.model.cflow import ModelConfig
from runtime.images.folders import MOST_SPREAD
from runtime.images.preprocess import PLAIN, ReadOptions, resize
from runtime.images.tiles import TileGrid
from train.data.disk_arrays import DiskArrays
from train.data.open import ImageCache

GOLDEN_SHARE = (5**0.5 - 1) / 2  # of the tiles: steps of about so many come by all of them, and near each late


class TileCache(ImageCache):
    """The tiles that `grid` cuts from frames, frame by frame; index i is tile i % per_image of frame i // per_image.

    With a folder `scratch` frames are kept on its disk; without one only the newest is kept, in memory. Raises
    `UserError` where that disk has not the room.
    """

    def __init__(
        self, paths: Sequence[Path], grid: TileGrid, read: ReadOptions = PLAIN, scratch: Path | None = None
    ) -> None:
        super().__init__(paths, grid.tile, 0, read)
        self.grid, self.per_image = grid, grid.count
        self._corners = list(grid.corners())
        self._newest: tuple[int, NDArray[np.uint8]] | None = None
        self._stored = [False] * len(self.paths)
        self._frames = None if scratch is None else _on_disk((len(self.paths), *grid.frame, 3), scratch)

    def __len__(self) -> int:
        return len(self.paths) * self.per_image

    def frame(self, number: int) -> NDArray[np.uint8]:
        """Return frame `number`, (H, W, 3) uint8 RGB in the size that is judged; of one on disk only what is read."""
        if self._frames is None:
            if self._newest is None or self._newest[0] != number:
                self._newest = number, resize(self.decoded(number), self.grid.frame)
            return self._newest[1]
        if not self._stored[number]:
            self._frames.store(number, resize(self.decoded(number), self.grid.frame))
            self._stored[number] = True
        frame: NDArray[np.uint8] = self._frames.whole[number]
        return frame

    def image(self, index: int) -> NDArray[np.uint8]:
        """Return tile `index`, (h, w, 3) uint8 RGB."""
        (top, left), (height, width) = self._corners[index % self.per_image], self.size
        return np.array(self.frame(index // self.per_image)[top : top + height, left : left + width])

    def corners(self, indices: Sequence[int]) -> list[tuple[int, int]]:
        """Return the (top, left) of each tile in its frame, in pixels."""
        return [self._corners[index % self.per_image] for index in indices]

    def places(self, indices: Sequence[int]) -> NDArray[np.int64]:
        """Return the (row, column) of each tile among those of its frame, (B, 2)."""
        tiles = np.asarray(indices, np.int64) % self.per_image
        return np.stack(np.divmod(tiles, len(self.grid.lefts)), axis=1)

    def spread(self, most: int = MOST_SPREAD) -> list[int]:
        """Return at most `most` tiles, evenly spread over the frames and over the places in them."""
        count = min(most, len(self))
        step = _step(self.per_image)
        frames = [number * len(self.paths) // count for number in range(count)]
        return [frame * self.per_image + number * step % self.per_image for number, frame in enumerate(frames)]


def open_inputs(
    config: ModelConfig,
    paths: Sequence[Path],
    read: ReadOptions = PLAIN,
    *,
    scratch: Path | None = None,
    limit_bytes: int = 4 << 30,
) -> ImageCache:
    """Return what a detector of `config` sees of the images `paths`: tiles where it is tiled, else whole images.

    `scratch` is a folder with room for frames, which are else decoded whenever they are looked at; whole images are
    kept in memory while `limit_bytes` allows.
    """
    if config.tiles is None:
        return ImageCache(paths, config.input_size, limit_bytes, read)
    return TileCache(paths, config.tiles, read, scratch)


def _on_disk(shape: tuple[int, ...], folder: Path) -> DiskArrays:
    folder.mkdir(parents=True, exist_ok=True)
    return DiskArrays(shape, np.uint8, folder, "frames", "free some of it, or name another --out")


def _step(count: int) -> int:
    """Return a step near the golden share of `count` that comes by all of them."""
    return next(step for step in range(max(1, round(GOLDEN_SHARE * count)), count + 2) if math.gcd(step, count) == 1)
