"""What the simplest model of the same features reaches: a normal distribution per tap, with its full covariance.

It knows neither positions nor anything that is not linear (Rippel, Mertens, Merhof: Modeling the distribution of normal
data in pre-trained deep features for anomaly detection, 2020), and takes seconds. A flow that does not beat it has not
been trained.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from export.model.cflow import CFlow
from train.data.open import ImageCache

MOST = 64  # images that it is fitted to, evenly spread: some 10^4 features of every tap
BATCH = 8
SMALLEST_SHARE = 0.02  # of the mean deviation: what a constant channel has, as in `FlowGradient.standardise`


@torch.no_grad()
def gaussian_logps(model: CFlow, images: ImageCache, held_out: ImageCache, device: torch.device) -> list[float]:
    """Return each tap's mean log-likelihood of `held_out` under a normal distribution fitted to `images`.

    In nats per dimension, as the flow's. `model` lies on `device`.
    """
    normals = [_fit(features) for features in _features(model, images, device)]
    judged = _features(model, held_out, device)
    return [_mean_logp(normal, features) for normal, features in zip(normals, judged, strict=True)]


def _features(model: CFlow, images: ImageCache, device: torch.device) -> list[Tensor]:
    """Return each tap's features (N, D) of at most `MOST` images, on the host."""
    chosen = np.unique(np.linspace(0, len(images) - 1, min(MOST, len(images))).round().astype(int)).tolist()
    batches = [_encode(model, images, chosen[i : i + BATCH], device) for i in range(0, len(chosen), BATCH)]
    return [torch.cat(parts) for parts in zip(*batches, strict=True)]


def _encode(model: CFlow, images: ImageCache, indices: list[int], device: torch.device) -> list[Tensor]:
    frames = torch.from_numpy(images.batch(indices)).to(device)
    taps = model.eval().features(frames)
    return [tap.permute(0, 2, 3, 1).reshape(-1, tap.shape[1]).cpu() for tap in taps]


def _parts(features: Tensor) -> Iterator[Tensor]:
    yield from (part.double() for part in torch.split(features, 1 << 14))


def _fit(features: Tensor) -> MultivariateNormal:
    mean = torch.stack([part.sum(0) for part in _parts(features)]).sum(0) / len(features)
    squares = torch.stack([(part - mean).T @ (part - mean) for part in _parts(features)]).sum(0)
    covariance = squares / len(features)
    floor = SMALLEST_SHARE * covariance.diagonal().sqrt().mean() + 1e-12
    return MultivariateNormal(mean, covariance + floor**2 * torch.eye(len(mean), dtype=mean.dtype))


def _mean_logp(normal: MultivariateNormal, features: Tensor) -> float:
    total = torch.stack(
        [
            normal.log_prob(part).sum()  # type: ignore[no-untyped-call]
            for part in _parts(features)
        ]
    ).sum()
    return float(total) / features.numel()
