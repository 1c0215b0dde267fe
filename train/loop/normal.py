"""A normal distribution of a tap's features: where a fast training begins, and what every training must beat.

It has its full covariance, but it knows neither positions nor anything that is not linear (Rippel, Mertens, Merhof:
Modeling the distribution of normal data in pre-trained deep features for anomaly detection, 2020).

Neighbouring features are alike, so that far fewer of them are independent than there are, and a covariance taken as it
is promises too much: directions in which these images hardly vary, and others do. So the correlations are drawn
towards none, as far as one half of the features asks for to be likely under the other half's.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from export.model.cflow import CFlow
from train.data.open import ImageCache

BATCH = 8
SMALLEST_SHARE = 0.02  # of the mean deviation: what a constant channel is taken to have
SMALLEST_MEAN = 0.01  # of the features' size: what the mean deviation of features that never change is taken to be
SHRINKAGES = (1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0)  # less would blow up what FP16 and INT8 round


@dataclass(frozen=True, eq=False)
class Normal:
    """A normal distribution of D channels, in float64.

    `mean` and `deviations` (D,) standardise the channels; `axes` (D, D), one a row, are the principal axes of what
    comes out, and `variances` (D,) those along them, already shrunk.
    """

    mean: Tensor
    deviations: Tensor
    axes: Tensor
    variances: Tensor

    def along_axes(self, features: Tensor) -> Iterator[Tensor]:
        """Yield features (N, D) along the axes, in parts."""
        for part in torch.split(features, 1 << 14):
            yield ((part.double() - self.mean) / self.deviations) @ self.axes.T

    def mean_log_likelihood(self, features: Tensor) -> float:
        """Return the mean log-likelihood of features (N, D), in nats per dimension."""
        squares = torch.stack([part.square().sum(0) for part in self.along_axes(features)]).sum(0) / len(features)
        return self._of_squares(squares)

    def _of_squares(self, squares: Tensor) -> float:
        log_det = 0.5 * self.variances.log() + self.deviations.log()
        return -float((0.5 * squares / self.variances + log_det).mean()) - 0.5 * math.log(2 * math.pi)

    def shrunk(self, share: float) -> "Normal":
        """Return it with its correlations drawn towards none by `share`."""
        return replace(self, variances=(1 - share) * self.variances + share)

    def best_shrinkage(self, features: Tensor) -> float:
        """Return which of `SHRINKAGES` makes features (N, D) most likely."""
        squares = torch.stack([part.square().sum(0) for part in self.along_axes(features)]).sum(0) / len(features)
        return max(SHRINKAGES, key=lambda share: self.shrunk(share)._of_squares(squares))


def fit_normal(features: Tensor) -> Normal:
    """Fit to features (N, D), at least two and in the order of their images; as likely as possible to new ones."""
    middle = len(features) // 2
    share = _as_they_are(features[:middle]).best_shrinkage(features[middle:])
    return _as_they_are(features).shrunk(share)


def _as_they_are(features: Tensor) -> Normal:
    parts = [part.double() for part in torch.split(features, 1 << 14)]
    mean = torch.stack([part.sum(0) for part in parts]).sum(0) / len(features)
    covariance = torch.stack([(part - mean).T @ (part - mean) for part in parts]).sum(0) / len(features)
    deviations = covariance.diagonal().sqrt()
    usual = torch.maximum(deviations.mean(), SMALLEST_MEAN * mean.square().mean().sqrt())
    deviations = deviations.clamp_min(SMALLEST_SHARE * float(usual) + 1e-9)
    variances, axes = torch.linalg.eigh(covariance / deviations / deviations[:, None])
    return Normal(mean, deviations, axes.T.contiguous(), variances.clamp_min(0))


@torch.no_grad()
def fit_normals(model: CFlow, images: ImageCache, device: torch.device) -> list[Normal]:
    """Fit one normal distribution to each tap's features of `images`; `model` lies on `device`."""
    return [fit_normal(features) for features in tap_features(model, images, device)]


@torch.no_grad()
def tap_features(model: CFlow, images: ImageCache, device: torch.device) -> list[Tensor]:
    """Return each tap's features (N, D) of at most `MOST_SPREAD` images, some 10^4 of every tap, on the host."""
    chosen = images.spread()
    batches = [_encode(model, images, chosen[i : i + BATCH], device) for i in range(0, len(chosen), BATCH)]
    return [torch.cat(parts) for parts in zip(*batches, strict=True)]


def _encode(model: CFlow, images: ImageCache, indices: list[int], device: torch.device) -> list[Tensor]:
    frames = torch.from_numpy(images.batch(indices)).to(device)
    taps = model.eval().features(frames)
    return [tap.permute(0, 2, 3, 1).reshape(-1, tap.shape[1]).cpu() for tap in taps]
