"""SPADE (Cohen and Hoshen 2020, arXiv 2005.02357): nearest good images, and nearest positions within them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from export.bench.baselines.common import Baseline, BaselineConfig

SCALES = ("layer1", "layer2", "layer3")  # where positions are compared
POOLED = "layer4"  # whose average over positions compares whole images
NEIGHBOURS = 50  # the paper's K
MVTEC_IMAGES = 242  # good training images of a class of MVTec AD on average: 3629 of 15 classes
CHUNK_BYTES = 12 << 20  # of the products at a time: larger ones leave the cache and take half as long again


@dataclass(frozen=True)
class SpadeConfig(BaselineConfig):
    """Encoder, frame size, how many good `images` are kept, and how many of them a frame is held against."""

    TAPS = (*SCALES, POOLED)
    images: int = MVTEC_IMAGES
    neighbours: int = NEIGHBOURS

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The pooled features (N, D), and per scale the features (N, P, D) and their squared norms (N, P)."""
        shapes: dict[str, tuple[int, ...]] = {"pooled": (self.images, self.tap_sizes[-1][0])}
        for name, (channels, height, width) in zip(SCALES, self.tap_sizes, strict=False):
            shapes[name] = (self.images, height * width, channels)
            shapes[f"{name}_squares"] = (self.images, height * width)
        return shapes

    @property
    def flops(self) -> int:
        """Operations of one frame: distances to every image and to every position of the nearest, and the filter."""
        images = 2 * math.prod(self.shapes["pooled"])
        pairs = (self.shapes[name][1:] for name in SCALES)
        return images + sum(2 * self.neighbours * count * count * d for count, d in pairs) + self.filter_flops

    @property
    def bytes_read(self) -> int:
        """The bytes of one frame's statistics: every image's pooled features, the positions of the nearest."""
        pooled = 4 * math.prod(self.shapes["pooled"])
        return pooled + (self.stored_bytes - pooled) * self.neighbours // self.images


class Spade(Baseline[SpadeConfig]):
    """SPADE's inference. Its statistics are the good images' features themselves (`SpadeConfig.shapes`).

    `chunk_bytes` bounds the memory of the search for nearest positions, per frame.
    """

    CONFIG = SpadeConfig
    chunk_bytes = CHUNK_BYTES

    def judge(self, taps: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Map the taps of B crops to their maps (B, h, w) and image scores (B,), Euclidean distances of features.

        The image score is the mean distance of pooled features to the K nearest good images; a position's score is
        its distance to the nearest position of those images (the paper's kappa is 1), averaged over the scales.
        """
        *scales, last = taps
        pooled = last.mean(dim=(2, 3))
        distances = torch.cdist(pooled, self.get_buffer("pooled"), compute_mode="donot_use_mm_for_euclid_dist")
        nearest = distances.topk(self.config.neighbours, largest=False)
        neighbours = nearest.indices.tolist()
        grids = [self._grid(name, tap, neighbours) for name, tap in zip(SCALES, scales, strict=True)]
        return self.to_pixels(grids), nearest.values.mean(dim=1)

    def _grid(self, name: str, tap: Tensor, neighbours: list[list[int]]) -> Tensor:
        """Map one scale's (B, D, h, w) to distances (B, h, w); each frame has its own neighbours."""
        gallery, squares = self.get_buffer(name), self.get_buffer(f"{name}_squares")
        rows = max(1, self.chunk_bytes // (gallery.element_size() * gallery.shape[1]))
        fibers = tap.flatten(2).mT.contiguous()  # (B, h·w, D), positions row by row
        found = [
            torch.cat([nearest_distances(some, gallery, squares, images) for some in torch.split(query, rows)])
            for query, images in zip(fibers, neighbours, strict=True)
        ]
        return torch.stack(found).view(-1, *tap.shape[2:])

    @staticmethod
    def make_possible(statistics: Mapping[str, Tensor]) -> None:
        """Fill in the squared norms of the features."""
        for name in SCALES:
            for features, squares in zip(statistics[name], statistics[f"{name}_squares"], strict=True):
                torch.sum(features.square(), dim=1, out=squares)


def nearest_distances(query: Tensor, gallery: Tensor, squares: Tensor, images: Sequence[int]) -> Tensor:
    """Return each query's Euclidean distance to its nearest feature in `images` of the gallery.

    `query` (Q, D), `gallery` (N, P, D), `squares` (N, P) its squared norms; the result is (Q,). By
    |a - b|² = |a|² + |b|² - 2ab, one image at a time, which copies no part of the gallery. Rounding may leave a
    little below 0 where a = b: that is 0.
    """
    nearest = query.new_full((len(query),), torch.inf)
    for image in images:
        shifted = torch.addmm(squares[image], query, gallery[image].T, alpha=-2)
        nearest = torch.minimum(nearest, shifted.amin(dim=1))
    return (nearest + query.square().sum(dim=1)).clamp_min(0).sqrt()
