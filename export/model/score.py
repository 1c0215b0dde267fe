"""From log-likelihoods to what an engine says of a frame: the anomaly map and the image score.

Four ways. The paper's holds every position against the largest likelihood ever seen: good positions lie far below
it, so that most of the score's range is spent on them, and its image score is one position's. Ours hold it against the
median of good positions, in units of how far good ones stray. "deviation" takes the image score from the taps' sum;
"tap_deviation" from each tap by itself, weighted by how steady that tap is over good images; "place_deviation" from
the taps and their sum, and places where good images too are unlikely have a level of their own. Every constant is
frozen at training time, so that a frame's score depends on no other frame.

Why places: at the border of an image an encoder sees zeros, and the part's edge. Good images stray furthest there: of
good magnetic tiles, half to three quarters of a tap's highest positions lay in the outermost ring of its grid. Held to
one level for all places, the border decides the image score, whatever is in the middle. A place is never held to a
higher level than the others: where a part turns or moves, few good images have shown what may be there.
"""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from runtime.images.mask import TOP_SHARES as TOP_SHARES_OF

Score = Literal["place_deviation", "tap_deviation", "deviation", "paper"]
SCORES: tuple[Score, ...] = ("place_deviation", "tap_deviation", "deviation", "paper")
(TOP_SHARE,) = TOP_SHARES_OF["deviation"]  # of the positions of the finest tap
TOP_SHARES = TOP_SHARES_OF["place_deviation"]  # of a tap's positions: defects of a few, and wide ones
MOST_POSITIONS = 3840  # that a TopK of TensorRT returns
RARE = 1e-3  # of good positions: those that lie half a spread or more below the level
RARE_AT_A_PLACE = 0.02  # of good positions at a place and its eight neighbours
SMALLEST_SPREAD = 1e-3  # nats per dimension; for features that are all alike
IMAGES_OF_PRIOR = 10  # as many images' weight has the belief that taps stray alike, and that places are alike
SMALLEST_RELATIVE_STRAY = 0.01  # of the mean: where the images are all alike, or only one
SMALLEST_STRAY = 0.1  # of the largest: what a tap that hardly moves on good images is taken to stray


def constant_shape(score: Score, taps: int) -> tuple[int, int]:
    """Return (rows, columns) of the score's constants: levels and spreads, and a weight for each of `TOP_SHARES`.

    A column is a tap's; the last one of "place_deviation" is that of the taps' sum, which is at level 0 and spread 1.
    """
    rows = 2 + (len(TOP_SHARES) if score in ("place_deviation", "tap_deviation") else 0)
    return rows, taps + (score == "place_deviation")


def freeze_places(log_likelihoods: Sequence[Tensor]) -> list[Tensor]:
    """Return by how much the level of each place lies below the others', (h, w) per tap, <= 0, from (N, h, w) of good.

    In nats per dimension: what the lowest fiftieth of good positions at a place and its neighbours reaches, less what
    it reaches at the median place. A few images hardly tell places apart: it is drawn towards no difference.
    """
    places = []
    for logp in log_likelihoods:
        images, height, width = logp.shape
        padded = F.pad(logp.unsqueeze(1), (1, 1, 1, 1), mode="replicate").squeeze(1)
        shifts = [(row, column) for row in range(3) for column in range(3)]
        near = torch.cat([padded[:, row : row + height, column : column + width] for row, column in shifts])
        low = near.kthvalue(1 + int(RARE_AT_A_PLACE * len(near)), dim=0).values
        places.append((low - low.median()).clamp_max(0) * (images / (images + IMAGES_OF_PRIOR)))
    return places


def freeze_constants(log_likelihoods: Sequence[Tensor], score: Score, places: Sequence[Tensor] = ()) -> Tensor:
    """Return the score's constants (`constant_shape`) from good images' (N, h, w) per tap, and their `places`.

    "paper": the levels m_k are the largest log-likelihood, and the spreads τ_k 1. Else: m_k is the median, and τ_k
    twice how far below it the lowest good position in a thousand lies, so that there 1 - p = 0.39, and defects have
    the rest of the range. The scores by tap have `share_weights` below them.
    """
    if score == "paper":
        levels = torch.stack([logp.max() for logp in log_likelihoods])
        return torch.stack([levels, torch.ones_like(levels)])
    pairs = []
    for index, logp in enumerate(log_likelihoods):
        values = (logp - places[index] if places else logp).flatten().sort().values
        level, rare = values[len(values) // 2], values[int(RARE * len(values))]
        pairs.append(torch.stack([level, (2 * (level - rare)).clamp_min(SMALLEST_SPREAD)]))
    constants = torch.stack(pairs, dim=1)
    if score == "deviation":
        return constants
    weights = share_weights(likelihood_ratios(log_likelihoods, constants, places), score)
    of_sum = constants.new_tensor([[0.0], [1.0]])[:, : weights.shape[1] - constants.shape[1]]
    return torch.cat([torch.cat([constants, of_sum], dim=1), weights])


def likelihood_ratios(
    log_likelihoods: Sequence[Tensor], constants: Tensor, places: Sequence[Tensor] = ()
) -> list[Tensor]:
    """Return p_k = exp(min((logp_k - place_k - m_k) / τ_k, 0)) in [0, 1] for each tap's (B, h, w).

    m_k and τ_k are `constants`' first rows; no `places` are places that are all alike. What a place takes off is
    moved to the limit, min(x - q, 0) = min(x, q) - q, so that all in front of it is one scalar for the exporter.
    """
    ratios = []
    for index, logp in enumerate(log_likelihoods):
        level, spread = constants[0, index], constants[1, index]
        excess = (logp - level) / spread
        if places:
            limit = places[index] / spread
            ratios.append(torch.exp(torch.minimum(excess, limit) - limit))
        else:
            ratios.append(torch.exp(torch.clamp(excess, max=0)))
    return ratios


def share_weights(ratios: Sequence[Tensor], score: Score = "tap_deviation") -> Tensor:
    """Return the weight of each share's mean in the image score, (S, columns) with sum K, from good images' p_k.

    A weight is inverse to the standard deviation over good images, so that a tap that says little of them is not
    heard. A few images hardly tell a standard deviation: it is drawn towards the same share of the mean for all. The
    taps' mean, where it is heard, stands for K taps and so has the weight of K.
    """
    shares = torch.stack([share_means(heard.double()) for heard in heard_of(ratios, score)])  # (columns, N, S)
    mean, deviation = shares.mean(dim=1).T.clamp_min(1e-6), shares.std(dim=1, correction=0).T
    images, relative = len(ratios[0]), deviation / mean
    usual = relative.square().mean().clamp_min(SMALLEST_RELATIVE_STRAY**2)
    stray = mean * ((images * relative.square() + IMAGES_OF_PRIOR * usual) / (images + IMAGES_OF_PRIOR)).sqrt()
    weights = 1 / stray.clamp_min(1e-9).clamp_min(SMALLEST_STRAY * float(stray.max()))
    weights[:, len(ratios) :] *= len(ratios)
    return (weights * (len(ratios) / weights.sum())).to(ratios[0])


def heard_of(ratios: Sequence[Tensor], score: Score) -> list[Tensor]:
    """Return what a score by tap takes its shares of, (B, h, w) in [0, 1]: each 1 - p_k, and their mean where it is.

    The mean is on the grid of the finest tap (ratios[0]): it is high where the taps agree.
    """
    taps = [1 - ratio for ratio in ratios]
    if score == "tap_deviation":
        return taps
    height, width = ratios[0].shape[1:]
    return [*taps, anomaly_map(list(ratios), (int(height), int(width))) / len(ratios)]


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
    largest 1 % of positions, with the taps summed on the grid of the finest one (ratios[0]). By tap:
    Σ_k Σ_s w_sk T_sk, T_sk being the mean of the largest share s of what is heard (`heard_of`), and w_sk the
    `constants` below m_k, τ_k.
    """
    if score == "paper":
        return scores.amax(dim=(1, 2))
    if score == "deviation":
        height, width = ratios[0].shape[1:]
        positions = anomaly_map(ratios, (int(height), int(width))).flatten(1)
        return positions.topk(top_count(int(height) * int(width)), dim=1).values.mean(dim=1)
    total: Tensor | float = 0.0
    for heard, weights in zip(heard_of(ratios, score), constants[2:].T, strict=True):
        by_rank = rank_weights(heard)
        top = heard.flatten(1).topk(by_rank.shape[1], dim=1).values
        total = total + (top * (weights[:, None] * by_rank).sum(dim=0)).sum(dim=1)
    assert isinstance(total, Tensor)
    return total


def share_means(heard: Tensor) -> Tensor:
    """Return the means of the largest `TOP_SHARES` of a tap's 1 - p, or of their mean: (B, S) from (B, h, w)."""
    by_rank = rank_weights(heard)
    return heard.flatten(1).topk(by_rank.shape[1], dim=1).values @ by_rank.T


def rank_weights(values: Tensor) -> Tensor:
    """Return what turns the n largest values of a (B, h, w), in descending order, into each share's mean: (S, n)."""
    positions = int(values.shape[1]) * int(values.shape[2])
    counts = [min(top_count(positions, share), MOST_POSITIONS) for share in TOP_SHARES]
    ranks = torch.arange(max(counts), device=values.device)
    return torch.stack([(ranks < count).to(values) / count for count in counts])


def top_count(positions: int, share: float = TOP_SHARE) -> int:
    """Return how many of a grid's positions a share is; at least one."""
    return max(1, round(share * positions))
