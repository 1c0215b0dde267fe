"""SPADE (Cohen and Hoshen 2020, arXiv 2005.02357): nearest good images, and nearest positions within them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from export.bench.baselines.common import Baseline, BaselineConfig, Size, ToPixels, random_encoder, tap_batches
from runtime.common.errors import UserError

SCALES = ("layer1", "layer2", "layer3")  # where positions are compared
POOLED = "layer4"  # whose average over positions compares whole images
NEIGHBOURS = 50  # the paper's K
MVTEC_IMAGES = 242  # good training images of a class of MVTec AD on average: 3629 of 15 classes
CHUNK_BYTES = 12 << 20  # of the products at a time: larger ones leave the cache and take half as long again


@dataclass(frozen=True)
class SpadeConfig(BaselineConfig):
    """Encoder, frame size, how many good `images` are kept, and how many of them a frame is held against.

    Raises `UserError` for more neighbours than images.
    """

    images: int = MVTEC_IMAGES
    neighbours: int = NEIGHBOURS

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.neighbours <= self.images:
            raise UserError(
                f"SPADE with {self.neighbours} neighbours needs at least as many good images, and one at least",
                str(self.images),
                "give more images or take fewer neighbours",
            )

    @property
    def taps(self) -> tuple[str, ...]:
        """The encoder's taps, from fine to coarse."""
        return (*SCALES, POOLED)

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
        positions = sum(2 * self.neighbours * count * count * channels for count, channels in pairs)
        return images + positions + ToPixels.flops(self.crop)

    @property
    def bytes_read(self) -> int:
        """The bytes of one frame's statistics: every image's pooled features, the positions of the nearest."""
        pooled = 4 * math.prod(self.shapes["pooled"])
        return pooled + (self.stored_bytes - pooled) * self.neighbours // self.images


class Spade(Baseline[SpadeConfig]):
    """SPADE's inference. Its statistics are the good images' features themselves (`SpadeConfig.shapes`).

    `chunk_bytes` bounds the memory of the search for nearest positions, per frame.
    """

    FORMAT = "cflow-edge/spade/1"
    CONFIG = SpadeConfig

    def __init__(self, config: SpadeConfig, encoder: nn.Module, statistics: Mapping[str, Tensor]) -> None:
        super().__init__(config, encoder, statistics)
        self.chunk_bytes = CHUNK_BYTES

    def judge(self, taps: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Map the taps of B crops to their maps (B, h, w) and image scores (B,), Euclidean distances of features.

        The image score is the mean distance of pooled features to the K nearest good images; a position's score is
        its distance to the nearest position of those images (the paper's kappa is 1), averaged over the scales.
        """
        *scales, last = taps
        distances = torch.cdist(pool(last), self.get_buffer("pooled"), compute_mode="donot_use_mm_for_euclid_dist")
        nearest = distances.topk(self.config.neighbours, largest=False)
        neighbours = nearest.indices.tolist()
        grids = [self._grid(name, tap, neighbours) for name, tap in zip(SCALES, scales, strict=True)]
        return self.to_pixels(grids), nearest.values.mean(dim=1)

    def _grid(self, name: str, tap: Tensor, neighbours: list[list[int]]) -> Tensor:
        """Map one scale's (B, D, h, w) to distances (B, h, w); each frame has its own neighbours."""
        gallery, squares = self.get_buffer(name), self.get_buffer(f"{name}_squares")
        frames = zip(fibers(tap), neighbours, strict=True)
        found = [nearest_distances(query, gallery, squares, images, self.chunk_bytes) for query, images in frames]
        return torch.stack(found).view(-1, *tap.shape[2:])

    @classmethod
    def fit(
        cls, encoder_name: str, encoder: nn.Module, frames: Tensor, neighbours: int = NEIGHBOURS, batch: int = 8
    ) -> "Spade":
        """Keep the features of good frames (N, H, W, 3) uint8, computed `batch` at a time.

        Raises `UserError` for fewer frames than neighbours.
        """
        size = (frames.shape[1], frames.shape[2])
        config = SpadeConfig(encoder_name, size, len(frames), neighbours)
        statistics = {name: torch.empty(shape) for name, shape in config.shapes.items()}
        first = 0
        for taps in tap_batches(config, encoder, frames, batch):
            some = slice(first, first + len(taps[0]))
            statistics["pooled"][some] = pool(taps[-1])
            for name, tap in zip(SCALES, taps, strict=False):
                statistics[name][some] = fibers(tap)
            first = some.stop
        _fill_squares(statistics)
        return cls(config, encoder, statistics).eval()


def pool(tap: Tensor) -> Tensor:
    """Average a tap (B, D, h, w) over its positions to (B, D)."""
    return tap.mean(dim=(2, 3))


def fibers(tap: Tensor) -> Tensor:
    """Lay a tap (B, D, h, w) out as (B, h·w, D), positions row by row."""
    return tap.flatten(2).mT.contiguous()


def nearest_distances(
    query: Tensor, gallery: Tensor, squares: Tensor, images: Sequence[int], chunk_bytes: int
) -> Tensor:
    """Return each query's Euclidean distance to its nearest feature in `images` of the gallery.

    `query` (Q, D), `gallery` (N, P, D), `squares` (N, P) its squared norms; the result is (Q,). By
    |a - b|² = |a|² + |b|² - 2ab, one image at a time, which copies no part of the gallery, and as many queries at a
    time as products of `chunk_bytes` hold. Rounding may leave a little below 0 where a = b: that is 0.
    """
    rows = max(1, chunk_bytes // (gallery.element_size() * gallery.shape[1]))
    found = []
    for some in torch.split(query, rows):
        nearest = some.new_full((len(some),), torch.inf)
        for image in images:
            shifted = torch.addmm(squares[image], some, gallery[image].T, alpha=-2)
            nearest = torch.minimum(nearest, shifted.amin(dim=1))
        found.append(nearest + some.square().sum(dim=1))
    return torch.cat(found).clamp_min(0).sqrt()


def _fill_squares(statistics: dict[str, Tensor]) -> None:
    for name in SCALES:
        for features, squares in zip(statistics[name], statistics[f"{name}_squares"], strict=True):
            torch.sum(features.square(), dim=1, out=squares)


def random_spade(
    encoder: str, size: Size, seed: int = 0, images: int = MVTEC_IMAGES, neighbours: int = NEIGHBOURS
) -> Spade:
    """Return SPADE with seeded random weights and galleries, which take the time that fitted ones take."""
    config = SpadeConfig(encoder, size, images, neighbours)
    generator = torch.Generator().manual_seed(seed)
    statistics = {name: torch.empty(shape) for name, shape in config.shapes.items()}
    for name in ("pooled", *SCALES):
        statistics[name].uniform_(generator=generator)  # not negative, as features after a ReLU
    _fill_squares(statistics)
    return Spade(config, random_encoder(config, seed), statistics).eval()
