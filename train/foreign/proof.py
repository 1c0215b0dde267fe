"""An evaluation of a foreign flow straight from its own weights, in float64, and the comparison with ours.

Nothing of `export.model` is used for it but the encoder: normalisation, position codes, coupling blocks and the
density are written once more, from the paper's equations and FrEIA's `AllInOneBlock`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from export.model.cflow import CFlow, ModelConfig
from export.model.flow import Clamp
from train.foreign.detect import blocks_of
from train.foreign.weights import State

POSITIONS = 256  # compared per tap
ALPHA = 1.9


@dataclass(frozen=True)
class Sample:
    """Fibers of one tap (N, D) with their condition vectors (N, 128) or None, in float64, and where they are from."""

    fibers: Tensor
    condition: Tensor | None
    places: tuple[Tensor, Tensor, Tensor]  # image, row, column


def log_likelihood(decoder: State, sample: Sample, clamp: Clamp) -> Tensor:
    """Return the log-likelihood of a sample under a decoder's own weights: nats per dimension, (N,), float64."""
    x = sample.fibers
    count, channels = x.shape
    half = channels - channels // 2
    log_det = torch.zeros(count, dtype=torch.float64)
    for block in blocks_of(decoder):
        w = {name: value.double() for name, value in block.items()}
        x1, x2 = x[:, :half], x[:, half:]
        read = x1 if sample.condition is None else torch.hstack([x1, sample.condition])
        hidden = (read @ w["subnet.0.weight"].T + w["subnet.0.bias"]).clamp(min=0)
        a = 0.1 * (hidden @ w["subnet.2.weight"].T + w["subnet.2.bias"])
        a, t = a[:, : channels // 2], a[:, channels // 2 :]
        s = ALPHA * (a if clamp == "tanh(a)" else a / ALPHA).tanh()
        # 0.1·softplus with beta 1/2
        g = 0.2 * torch.logaddexp(w["global_scale"] / 2, torch.zeros((), dtype=torch.float64))
        x = (torch.hstack([x1, x2 * s.exp() + t]) * g + w["global_offset"]) @ w["w_perm"].T
        log_det = log_det + s.sum(1) + g.log().sum()
    density = -0.5 * channels * math.log(2 * math.pi) - 0.5 * (x * x).sum(1)
    return (density + log_det) / channels


def condition_vectors(rows: Tensor, columns: Tensor) -> Tensor:
    """Return the condition vectors (N, 128) of positions: column code, then row code, sines even, cosines odd."""
    code = torch.empty(len(rows), 128, dtype=torch.float64)
    for j in range(32):
        frequency = 10000 ** (-2 * j / 64)
        for start, position in ((0, columns), (64, rows)):
            code[:, start + 2 * j] = (position * frequency).sin()
            code[:, start + 2 * j + 1] = (position * frequency).cos()
    return code


def draw(encoder: nn.Module, config: ModelConfig, frames: Tensor) -> list[Sample]:
    """Draw up to `POSITIONS` fibers of every tap of `frames` (B, H, W, 3) uint8, the same places every time."""
    mean, std = torch.tensor(config.mean), torch.tensor(config.std)
    images = ((frames.float() / 255 - mean) / std).permute(0, 3, 1, 2)
    with torch.inference_mode():
        taps = encoder(images)
    rng = np.random.default_rng(0)
    drawn = []
    for features in taps:
        count, _, height, width = features.shape
        chosen = rng.choice(count * height * width, min(POSITIONS, count * height * width), replace=False)
        image, row, column = map(torch.from_numpy, np.unravel_index(chosen, (count, height, width)))
        condition = condition_vectors(row.double(), column.double()) if config.conditional else None
        drawn.append(Sample(features[image, :, row, column].double(), condition, (image, row, column)))
    return drawn


def mean_log_likelihood(decoders: Sequence[State], drawn: Sequence[Sample], clamp: Clamp) -> float:
    """Return the mean over taps and positions, nats per dimension, under the source's weights with this clamp."""
    means = [log_likelihood(d, sample, clamp).mean() for d, sample in zip(decoders, drawn, strict=True)]
    return float(torch.stack(means).mean())


def largest_difference(model: CFlow, decoders: Sequence[State], frames: Tensor) -> float:
    """Return the largest difference between `model` and the source's weights, relative to max(1, |log-likelihood|).

    It is over fibers of `frames` (B, H, W, 3) uint8, and NaN where either side has one.
    """
    drawn = draw(model.encoder, model.config, frames)
    with torch.inference_mode():
        maps = model.log_likelihoods(frames)
    largest = torch.zeros((), dtype=torch.float64)
    for ours, decoder, sample in zip(maps, decoders, drawn, strict=True):
        expected = log_likelihood(decoder, sample, model.config.clamp)
        difference = (ours[sample.places].double() - expected).abs() / expected.abs().clamp(min=1)
        largest = torch.maximum(largest, difference.max())
    return float(largest)
