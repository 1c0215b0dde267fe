"""From log-likelihoods to what an engine says of a frame: the anomaly map and the image score.

Every constant in it is frozen at training time, so that a frame's score depends on no other frame.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

ImageScore = Literal["top", "maximum"]
IMAGE_SCORES: tuple[ImageScore, ...] = ("top", "maximum")
TOP_SHARE = 0.01  # of the positions of the finest tap


def likelihood_ratios(log_likelihoods: list[Tensor], maxima: Tensor) -> list[Tensor]:
    """Return p_k = exp(min(logp_k - m_k, 0)) in [0, 1] for each tap's (B, h, w); `maxima` (K,) are frozen."""
    taps = zip(log_likelihoods, maxima, strict=True)
    return [torch.exp(torch.clamp(logp - maximum, max=0)) for logp, maximum in taps]


def anomaly_map(ratios: list[Tensor], size: tuple[int, int]) -> Tensor:
    """Sum the taps' anomaly, S = Σ_k (1 - up(p_k)), to (B, H, W) in [0, K].

    Bilinear upsampling with align_corners=True as in the reference implementation.
    """
    total: Tensor | float = 0.0
    for ratio in ratios:
        if tuple(ratio.shape[1:]) != size:
            ratio = F.interpolate(ratio.unsqueeze(1), size=size, mode="bilinear", align_corners=True).squeeze(1)
        total = total + (1 - ratio)
    assert isinstance(total, Tensor)
    return total


def image_score(ratios: list[Tensor], scores: Tensor, how: ImageScore) -> Tensor:
    """Return one score per frame, (B,) in [0, K], from the taps' p_k and their anomaly map `scores` (B, H, W).

    "maximum" is the paper's: the map's maximum, which a single position decides, on a good image too. "top" is the
    mean of the largest 1 % of positions, with the taps summed on the grid of the finest one (ratios[0]).
    """
    if how == "maximum":
        return scores.amax(dim=(1, 2))
    height, width = ratios[0].shape[1:]
    positions = anomaly_map(ratios, (int(height), int(width))).flatten(1)
    return positions.topk(top_count(int(height) * int(width)), dim=1).values.mean(dim=1)


def top_count(positions: int) -> int:
    """Return how many of the finest tap's positions make the "top" image score; at least one."""
    return max(1, round(TOP_SHARE * positions))
