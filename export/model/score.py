"""From log-likelihoods to what an engine says of a frame: the anomaly map and the image score.

Three ways. The paper's holds every position against the largest likelihood ever seen: good positions lie far below
it, so that most of the score's range is spent on them, and its image score is one position's. Ours hold it against the
median of good positions, in units of how far good ones stray. "deviation" takes the image score from the taps' sum;
"tap_deviation" from each tap by itself, weighted by how steady that tap is over good images. Every constant is frozen
at training time, so that a frame's score depends on no other frame.
"""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from runtime.images.mask import TOP_SHARES as TOP_SHARES_OF

Score = Literal["tap_deviation", "deviation", "paper"]
SCORES: tuple[Score, ...] = ("tap_deviation", "deviation", "paper")
(TOP_SHARE,) = TOP_SHARES_OF["deviation"]  # of the positions of the finest tap
TOP_SHARES = TOP_SHARES_OF["tap_deviation"]  # of a tap's positions: defects of a few positions, and wide ones
MOST_POSITIONS = 3840  # that a TopK of TensorRT returns
RARE = 1e-3  # of good positions: those that lie half a spread or more below the level
SMALLEST_SPREAD = 1e-3  # nats per dimension; for features that are all alike
IMAGES_OF_PRIOR = 10  # as many images' weight has the belief that all taps stray by the same share of their mean
SMALLEST_RELATIVE_STRAY = 0.01  # of the mean: where the images are all alike, or only one
SMALLEST_STRAY = 0.1  # of the largest: what a tap that hardly moves on good images is taken to stray


def constant_rows(score: Score) -> int:
    """Return how many rows the score's constants have: levels and spreads, and a weight for each of `TOP_SHARES`."""
    return 2 + (len(TOP_SHARES) if score == "tap_deviation" else 0)


def freeze_constants(log_likelihoods: Sequence[Tensor], score: Score) -> Tensor:
    """Return the score's constants (`constant_rows`, K) from good images' (N, h, w) per tap.

    "paper": the levels m_k are the largest log-likelihood, and the spreads τ_k 1. Else: m_k is the median, and τ_k
    twice how far below it the lowest good position in a thousand lies, so that there 1 - p = 0.39, and defects have
    the rest of the range. "tap_deviation" has `share_weights` below them.
    """
    if score == "paper":
        levels = torch.stack([logp.max() for logp in log_likelihoods])
        return torch.stack([levels, torch.ones_like(levels)])
    pairs = []
    for logp in log_likelihoods:
        values = logp.flatten().sort().values
        level, rare = values[len(values) // 2], values[int(RARE * len(values))]
        pairs.append(torch.stack([level, (2 * (level - rare)).clamp_min(SMALLEST_SPREAD)]))
    constants = torch.stack(pairs, dim=1)
    if score == "deviation":
        return constants
    return torch.cat([constants, share_weights(likelihood_ratios(log_likelihoods, constants))])


def likelihood_ratios(log_likelihoods: Sequence[Tensor], constants: Tensor) -> list[Tensor]:
    """Return p_k = exp(min((logp_k - m_k) / τ_k, 0)) in [0, 1] for each tap's (B, h, w), by `constants`' first rows."""
    taps = zip(log_likelihoods, *constants[:2], strict=True)
    return [torch.exp(torch.clamp((logp - level) / spread, max=0)) for logp, level, spread in taps]


def share_weights(ratios: Sequence[Tensor]) -> Tensor:
    """Return the weight of each share's mean in the image score, (S, K) with sum K, from good images' p_k (N, h, w).

    A weight is inverse to the standard deviation over good images, so that a tap that says little of them is not
    heard. A few images hardly tell a standard deviation: it is drawn towards the same share of the mean for all.
    """
    shares = torch.stack([share_means(ratio.double()) for ratio in ratios])  # (K, N, S)
    mean, deviation = shares.mean(dim=1).T.clamp_min(1e-6), shares.std(dim=1, correction=0).T
    images, relative = len(ratios[0]), deviation / mean
    usual = relative.square().mean().clamp_min(SMALLEST_RELATIVE_STRAY**2)
    stray = mean * ((images * relative.square() + IMAGES_OF_PRIOR * usual) / (images + IMAGES_OF_PRIOR)).sqrt()
    weights = 1 / stray.clamp_min(1e-9).clamp_min(SMALLEST_STRAY * float(stray.max()))
    return (weights * (len(ratios) / weights.sum())).to(ratios[0])


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


def image_score(ratios: list[Tensor], scores: Tensor, score: Score, constants: Tensor) -> Tensor:
    """Return one score per frame, (B,) in [0, K], from the taps' p_k and their anomaly map `scores` (B, H, W).

    "paper": the map's maximum, which a single position decides, on a good image too. "deviation": the mean of the
    largest 1 % of positions, with the taps summed on the grid of the finest one (ratios[0]). "tap_deviation":
    Σ_k Σ_s w_sk T_sk, T_sk being the mean of the largest share s of 1 - p_k, and w_sk the `constants` below m_k, τ_k.
    """
    if score == "paper":
        return scores.amax(dim=(1, 2))
    if score == "deviation":
        height, width = ratios[0].shape[1:]
        positions = anomaly_map(ratios, (int(height), int(width))).flatten(1)
        return positions.topk(top_count(int(height) * int(width)), dim=1).values.mean(dim=1)
    total: Tensor | float = 0.0
    for ratio, weights in zip(ratios, constants[2:].T, strict=True):
        by_rank = rank_weights(ratio)
        top = (1 - ratio).flatten(1).topk(by_rank.shape[1], dim=1).values
        total = total + (top * (weights[:, None] * by_rank).sum(dim=0)).sum(dim=1)
    assert isinstance(total, Tensor)
    return total


def share_means(ratio: Tensor) -> Tensor:
    """Return the means of the largest `TOP_SHARES` of a tap's 1 - p, (B, S) from (B, h, w)."""
    by_rank = rank_weights(ratio)
    return (1 - ratio).flatten(1).topk(by_rank.shape[1], dim=1).values @ by_rank.T


def rank_weights(ratio: Tensor) -> Tensor:
    """Return what turns the n largest values of a (B, h, w), in descending order, into each share's mean: (S, n)."""
    positions = int(ratio.shape[1]) * int(ratio.shape[2])
    counts = [min(top_count(positions, share), MOST_POSITIONS) for share in TOP_SHARES]
    ranks = torch.arange(max(counts), device=ratio.device)
    return torch.stack([(ranks < count).to(ratio) / count for count in counts])


def top_count(positions: int, share: float = TOP_SHARE) -> int:
    """Return how many of a grid's positions a share is; at least one."""
    return max(1, round(share * positions))
