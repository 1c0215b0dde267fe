"""What an encoder's features are worth without any training: a memory bank of good ones, and the nearest of them.

As PatchCore does it, small: features averaged over 3 x 3, all taps on the finest one's grid, each tap at unit
spread, the bank spread out by greedy choice. An image scores as its position that is furthest from the bank. The
same code for every encoder, so that what differs is the encoder, its weights and its pixels.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from train.data.open import ImageCache

Encode = Callable[[Tensor], list[Tensor]]  # frames (B, H, W, 3) uint8 to one (B, D, h, w) per tap
POSITIONS_AN_IMAGE = 128  # candidates for the bank
BANK = 2000
PROJECTED = 48  # dimensions in which the bank's members are told apart
SEED = 0


@dataclass(frozen=True)
class MemoryBank:
    """Good features (M, D) at unit spread; `scales` has each tap's 1 / spread."""

    members: Tensor
    scales: list[float]

    def distances(self, taps: list[Tensor]) -> Tensor:
        """Return every position's distance to the bank, (h, w) of the finest of one image's taps (1, D, h, w)."""
        queries = _positions(taps, self.scales)
        return torch.cdist(queries, self.members).amin(1).view(taps[0].shape[2:])

    def score(self, taps: list[Tensor]) -> float:
        """Return the largest distance of any position of one image, whose taps are (1, D, h, w), to the bank."""
        return float(self.distances(taps).amax())


@torch.no_grad()
def fill_bank(encode: Encode, good: ImageCache) -> MemoryBank:
    """Fill a bank from good images."""
    generator = torch.Generator().manual_seed(SEED)
    scales: list[float] = []
    candidates = []
    for taps in _taps(encode, good):
        scales = scales or [1 / float(tap.std()) for tap in taps]
        positions = _positions(taps, scales)
        candidates.append(positions[torch.randperm(len(positions), generator=generator)[:POSITIONS_AN_IMAGE]])
    return MemoryBank(_spread_out(torch.cat(candidates), generator), scales)


@torch.no_grad()
def bank_scores(encode: Encode, bank: MemoryBank, images: ImageCache) -> list[float]:
    """Return each image's score."""
    return [bank.score(taps) for taps in _taps(encode, images)]


@torch.no_grad()
def bank_maps(encode: Encode, bank: MemoryBank, images: ImageCache) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return all images' maps of distances (N, H, W) at their own size, and their scores (N,)."""
    size = images.batch([0]).shape[1:3]
    grids = [bank.distances(taps) for taps in _taps(encode, images)]
    maps = [F.interpolate(grid[None, None], size, mode="bilinear")[0, 0].numpy() for grid in grids]
    return np.stack(maps), np.array([float(grid.amax()) for grid in grids], dtype=np.float32)


def _taps(encode: Encode, images: ImageCache) -> Iterator[list[Tensor]]:
    """Yield every image's taps, (1, D, h, w) each."""
    for index in range(len(images)):
        yield encode(torch.from_numpy(images.batch([index])))


def _positions(taps: list[Tensor], scales: list[float]) -> Tensor:
    """Lay the taps of one image out as (h·w, D) on the finest grid."""
    grid = list(taps[0].shape[2:])
    smooth = [F.avg_pool2d(tap, 3, 1, 1) * scale for tap, scale in zip(taps, scales, strict=True)]
    fine = [F.interpolate(tap, grid, mode="bilinear") for tap in smooth]
    return torch.cat(fine, dim=1)[0].flatten(1).T.contiguous()


def _spread_out(candidates: Tensor, generator: torch.Generator) -> Tensor:
    """Choose members one after another, each the candidate that is furthest from those before."""
    near = candidates @ torch.randn(candidates.shape[1], PROJECTED, generator=generator)
    distance = torch.full((len(near),), torch.inf)
    chosen = [0]
    while len(chosen) < min(BANK, len(near)):
        distance = torch.minimum(distance, (near - near[chosen[-1]]).square().sum(1))
        chosen.append(int(distance.argmax()))
    return candidates[chosen]
