"""PaDiM (Defard et al. 2020, arXiv 2011.08785): a Gaussian per position, and the Mahalanobis distance to it."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from export.bench.baselines.common import Baseline, BaselineConfig, Size, ToPixels, random_encoder, tap_batches
from export.model.encoder import ENCODERS
from runtime.common.errors import UserError

TAPS = ("layer1", "layer2", "layer3")
DIMENSIONS = {"resnet18": 100, "wide_resnet50_2": 550}  # the paper's, of 448 and 1792 channels
REGULARISATION = 0.01  # the paper's epsilon, added to each variance
POSITIONS = 64  # whose matrices are inverted, or drawn, at a time: 155 MB in float64 at 550 dimensions


@dataclass(frozen=True)
class PadimConfig(BaselineConfig):
    """Encoder, frame size, and the `channels` kept: ascending indices into the taps concatenated from fine to coarse.

    Raises `UserError` for channels that the taps do not have.
    """

    channels: tuple[int, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.channels or sorted(set(self.channels) & set(range(self.available))) != list(self.channels):
            raise UserError(
                f"PaDiM's channels on {self.encoder} must be ascending and below {self.available}",
                f"{len(self.channels)} from {self.channels[:1]} to {self.channels[-1:]}",
            )

    @classmethod
    def draw(cls, encoder: str, size: Size, dimensions: int | None = None, seed: int = 0) -> "PadimConfig":
        """Choose `dimensions` channels at random; the paper's number for its encoders if None. `UserError` if none."""
        dimensions = dimensions or DIMENSIONS.get(encoder)
        available = _available(encoder)
        if dimensions is None or not 0 < dimensions <= available:
            raise UserError(f"PaDiM on {encoder} needs dimensions between 1 and {available}", str(dimensions))
        chosen = torch.randperm(available, generator=torch.Generator().manual_seed(seed))[:dimensions]
        return cls(encoder, size, tuple(chosen.sort().values.tolist()))

    @property
    def taps(self) -> tuple[str, ...]:
        """The encoder's taps, from fine to coarse."""
        return TAPS

    @property
    def available(self) -> int:
        """How many channels the taps have together."""
        return _available(self.encoder)

    @property
    def positions(self) -> int:
        """How many positions the finest tap has, P: each has its own Gaussian."""
        _, height, width = self.tap_sizes[0]
        return height * width

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The means (P, d) and the inverse covariances (P, d, d)."""
        d = len(self.channels)
        return {"mean": (self.positions, d), "inverse_covariance": (self.positions, d, d)}

    @property
    def flops(self) -> int:
        """Operations of one frame: a vector by a matrix and by a vector at each position, and the filter."""
        d = len(self.channels)
        return self.positions * 2 * (d * d + d) + ToPixels.flops(self.crop)


def _available(encoder: str) -> int:
    taps = ENCODERS[encoder].taps if encoder in ENCODERS else {}
    return sum(taps[tap].channels for tap in TAPS if tap in taps)


class Embedding(nn.Module):
    """The taps on the finest one's grid, concatenated, the chosen channels of them."""

    def __init__(self, config: PadimConfig) -> None:
        super().__init__()
        _, self.height, self.width = config.tap_sizes[0]
        first = 0
        for index, (channels, height, width) in enumerate(config.tap_sizes):
            chosen = [channel - first for channel in config.channels if first <= channel < first + channels]
            first += channels
            rows, columns = _nearest(height, self.height), _nearest(width, self.width)
            self.register_buffer(f"chosen{index}", torch.tensor(chosen, dtype=torch.long), persistent=False)
            self.register_buffer(f"source{index}", (rows[:, None] * width + columns).flatten(), persistent=False)

    def forward(self, taps: list[Tensor]) -> Tensor:
        """Map the taps (B, D, h, w) to embeddings (P, B, d), positions row by row."""
        parts = []
        for index, tap in enumerate(taps):
            chosen = tap[:, self.get_buffer(f"chosen{index}")]  # before upsampling, which then moves less
            fibers = chosen.flatten(2).permute(2, 0, 1)
            parts.append(fibers[self.get_buffer(f"source{index}")])
        return torch.cat(parts, dim=2)


def _nearest(inputs: int, outputs: int) -> Tensor:
    """Return which of `inputs` pixels each of `outputs` takes, in whole numbers that nothing rounds."""
    return torch.arange(outputs) * inputs // outputs


class Padim(Baseline[PadimConfig]):
    """PaDiM's inference: `mean` (P, d) and `inverse_covariance` (P, d, d) per position of the finest tap."""

    FORMAT = "cflow-edge/padim/1"
    CONFIG = PadimConfig
    mean: Tensor
    inverse_covariance: Tensor

    def __init__(self, config: PadimConfig, encoder: nn.Module, statistics: Mapping[str, Tensor]) -> None:
        super().__init__(config, encoder, statistics)
        self.embedding = Embedding(config)

    def judge(self, taps: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Map the taps of B crops to their maps (B, h, w), in standard deviations, and the maps' maxima (B,).

        The distance is sqrt((x - mean)ᵀ S⁻¹ (x - mean)).
        """
        delta = self.embedding(taps) - self.mean.unsqueeze(1)
        # One pass over the stored matrices, which are most of the time: no transpose or subset, which would copy them.
        squares = (torch.bmm(delta, self.inverse_covariance) * delta).sum(dim=2)
        grid = squares.clamp_min(0).sqrt().T.reshape(-1, self.embedding.height, self.embedding.width)
        maps = self.to_pixels([grid])
        return maps, maps.amax(dim=(1, 2))

    @classmethod
    def fit(
        cls,
        encoder_name: str,
        encoder: nn.Module,
        frames: Tensor,
        dimensions: int | None = None,
        seed: int = 0,
        batch: int = 8,
    ) -> "Padim":
        """Estimate the Gaussians from good frames (N, H, W, 3) uint8, N at least 2, `batch` at a time.

        The covariance is the unbiased one plus 0.01 on its diagonal. The frames' embeddings are never held together:
        memory is the result's and one batch's. `dimensions` and `seed` choose the channels as `PadimConfig.draw` does.
        Raises `UserError` for too few frames.
        """
        config = PadimConfig.draw(encoder_name, (frames.shape[1], frames.shape[2]), dimensions, seed)
        if len(frames) < 2:
            raise UserError("PaDiM's covariances need at least 2 good frames", str(len(frames)), "give more")
        embedding = Embedding(config)
        mean, scatter = (torch.zeros(shape) for shape in config.shapes.values())
        seen = 0
        for taps in tap_batches(config, encoder, frames, batch):
            seen = _accumulate(mean, scatter, seen, embedding(taps))
        _invert_covariances(scatter.div_(seen - 1))
        return cls(config, encoder, {"mean": mean, "inverse_covariance": scatter}).eval()


def _accumulate(mean: Tensor, scatter: Tensor, seen: int, embeddings: Tensor) -> int:
    """Add (P, B, d) to the means and the scatter Σ (x - mean)(x - mean)ᵀ of `seen` frames, in place; return how many.

    The batch's own scatter, and one more row for the way between the two means (Chan et al. 1979): sums of
    raw squares would lose the small variances of large means.
    """
    count = embeddings.shape[1]
    batch_mean = embeddings.mean(dim=1)
    way = batch_mean - mean
    rows = torch.cat([embeddings - batch_mean.unsqueeze(1), (way * (seen * count / (seen + count)) ** 0.5)[:, None]], 1)
    scatter.baddbmm_(rows.mT, rows)
    mean += way * (count / (seen + count))
    return seen + count


def _invert_covariances(covariance: Tensor) -> None:
    """Replace each covariance (P, d, d) by the inverse of covariance + 0.01 I, in place, computed in float64."""
    for some in torch.split(covariance, POSITIONS):
        regular = some.double()
        regular.diagonal(dim1=1, dim2=2).add_(REGULARISATION)
        some.copy_(torch.cholesky_inverse(torch.linalg.cholesky(regular)))


def random_padim(encoder: str, size: Size, seed: int = 0, dimensions: int | None = None) -> Padim:
    """Return PaDiM with seeded random weights and statistics, which take the time that fitted ones take.

    The inverse covariances are the identity and symmetric noise that no row's sum lets outweigh it: positive
    definite. `dimensions` as in `PadimConfig.draw`.
    """
    config = PadimConfig.draw(encoder, size, dimensions, seed)
    generator = torch.Generator().manual_seed(seed)
    shapes = config.shapes
    mean = torch.randn(shapes["mean"], generator=generator)
    inverse = torch.empty(shapes["inverse_covariance"])
    bound = 0.25 / len(config.channels)  # the noise of a row then sums to less than 1/2
    for some in torch.split(inverse, POSITIONS):
        noise = torch.empty_like(some).uniform_(-bound, bound, generator=generator)
        torch.add(noise, noise.mT, out=some)
        some.diagonal(dim1=1, dim2=2).add_(1)
    return Padim(config, random_encoder(config, seed), {"mean": mean, "inverse_covariance": inverse}).eval()
