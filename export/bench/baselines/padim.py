"""PaDiM (Defard et al. 2020, arXiv 2011.08785): a Gaussian per position, and the Mahalanobis distance to it."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from export.bench.baselines.common import SEED, Baseline, BaselineConfig

DIMENSIONS = {"resnet18": 100, "wide_resnet50_2": 550}  # the paper's, of 448 and 1792 channels


@dataclass(frozen=True)
class PadimConfig(BaselineConfig):
    """Encoder (one that the paper has) and frame size."""

    TAPS = ("layer1", "layer2", "layer3")

    @property
    def channels(self) -> list[int]:
        """The channels kept: ascending indices into the taps concatenated from fine to coarse, drawn at random."""
        available = sum(channels for channels, _, _ in self.tap_sizes)
        drawn = torch.randperm(available, generator=torch.Generator().manual_seed(SEED))
        return sorted(drawn[: DIMENSIONS[self.encoder]].tolist())

    @property
    def positions(self) -> int:
        """How many positions the finest tap has, P: each has its own Gaussian."""
        _, height, width = self.tap_sizes[0]
        return height * width

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The means (P, d) and the inverse covariances (P, d, d)."""
        d = DIMENSIONS[self.encoder]
        return {"mean": (self.positions, d), "inverse_covariance": (self.positions, d, d)}

    @property
    def flops(self) -> int:
        """Operations of one frame: a vector by a matrix and by a vector at each position, and the filter."""
        d = DIMENSIONS[self.encoder]
        return self.positions * 2 * (d * d + d) + self.filter_flops


class Padim(Baseline[PadimConfig]):
    """PaDiM's inference: `mean` (P, d) and `inverse_covariance` (P, d, d) per position of the finest tap."""

    CONFIG = PadimConfig
    mean: Tensor
    inverse_covariance: Tensor

    def __init__(self, config: PadimConfig, encoder: nn.Module, statistics: Mapping[str, Tensor]) -> None:
        super().__init__(config, encoder, statistics)
        first = 0
        for index, (channels, _, _) in enumerate(config.tap_sizes):
            chosen = [channel - first for channel in config.channels if first <= channel < first + channels]
            self.register_buffer(f"chosen{index}", torch.tensor(chosen, dtype=torch.long), persistent=False)
            first += channels

    def judge(self, taps: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Map the taps of B crops to their maps (B, h, w), in standard deviations, and the maps' maxima (B,).

        The distance is sqrt((x - mean)ᵀ S⁻¹ (x - mean)).
        """
        delta = self.embed(taps) - self.mean.unsqueeze(1)
        # One pass over the stored matrices, which are most of the time: no transpose or subset, which would copy them.
        squares = (torch.bmm(delta, self.inverse_covariance) * delta).sum(dim=2)
        grid = squares.clamp_min(0).sqrt().T.reshape(-1, *taps[0].shape[2:])
        maps = self.to_pixels([grid])
        return maps, maps.amax(dim=(1, 2))

    def embed(self, taps: list[Tensor]) -> Tensor:
        """Map the taps (B, D, h, w) to (P, B, d): the chosen channels on the finest grid, positions row by row."""
        chosen = [tap[:, self.get_buffer(f"chosen{index}")] for index, tap in enumerate(taps)]  # fewer to upsample
        whole = torch.cat([F.interpolate(tap, taps[0].shape[2:]) for tap in chosen], dim=1)
        return whole.flatten(2).permute(2, 0, 1).contiguous()  # or the products take twice as long

    @staticmethod
    def make_possible(statistics: Mapping[str, Tensor]) -> None:
        """Outweigh the noise of random matrices by their diagonals: no distance is negative."""
        inverse = statistics["inverse_covariance"]
        inverse.diagonal(dim1=1, dim2=2).add_(inverse.shape[1])
