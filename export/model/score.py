"""From log-likelihoods to what an engine says of a frame: the anomaly map and the image score.

Two ways. The paper's holds every position against the largest likelihood ever seen: good positions lie far below
it, so that most of the score's range is spent on them, and its image score is one position's. Ours ("deviation")
holds it against the median of good positions, in units of how far good ones stray. Every constant is frozen at
training time, so that a frame's score depends on no other frame.
"""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Score = Literal["deviation", "paper"]
SCORES: tuple[Score, ...] = ("deviation", "paper")
TOP_SHARE = 0.01  # of the positions of the finest tap
RARE = 1e-3  # of good positions: those that lie half a spread or more below the level
SMALLEST_SPREAD = 1e-3  # nats per dimension; for features that are all alike


def freeze_constants(log_likelihoods: Sequence[Tensor], score: Score) -> Tensor:
    """Return the score's constants (2, K), levels m_k and spreads τ_k, from good images' (N, h, w) per tap.

    "paper": the largest log-likelihood, and 1. "deviation": the median, and twice how far below it the
    lowest good position in a thousand lies, so that there 1 - p = 0.39, and defects have the rest of the range.
    """
    if score == "paper":
        levels = torch.stack([logp.max() for logp in log_likelihoods])
        return torch.stack([levels, torch.ones_like(levels)])
    pairs = []
    for logp in log_likelihoods:
        values = logp.flatten().sort().values
        level, rare = values[len(values) // 2], values[int(RARE * len(values))]
        pairs.append(torch.stack([level, (2 * (level - rare)).clamp_min(SMALLEST_SPREAD)]))
    return torch.stack(pairs, dim=1)


def likelihood_ratios(log_likelihoods: Sequence[Tensor], constants: Tensor) -> list[Tensor]:
    """Return p_k = exp(min((logp_k - m_k) / τ_k, 0)) in [0, 1] for each tap's (B, h, w); `constants` (2, K)."""
    taps = zip(log_likelihoods, *constants, strict=True)
    return [torch.exp(torch.clamp((logp - level) / spread, max=0)) for logp, level, spread in taps]


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


def image_score(ratios: list[Tensor], scores: Tensor, score: Score) -> Tensor:
    """Return one score per frame, (B,) in [0, K], from the taps' p_k and their anomaly map `scores` (B, H, W).

    "paper": the map's maximum, which a single position decides, on a good image too. "deviation": the mean of the
    largest 1 % of positions, with the taps summed on the grid of the finest one (ratios[0]).
    """
    if score == "paper":
        return scores.amax(dim=(1, 2))
    height, width = ratios[0].shape[1:]
    positions = anomaly_map(ratios, (int(height), int(width))).flatten(1)
    return positions.topk(top_count(int(height) * int(width)), dim=1).values.mean(dim=1)


def top_count(positions: int) -> int:
    """Return how many of the finest tap's positions decide the image score; at least one."""
    return max(1, round(TOP_SHARE * positions))
