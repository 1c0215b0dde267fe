"""What the simplest model of the same features reaches: a normal distribution per tap, fitted in seconds.

A flow that does not beat it has not been trained.
"""

from collections.abc import Sequence

import torch

from export.model.cflow import CFlow
from train.data.open import ImageCache
from train.loop.normal import Normal, tap_features


def gaussian_logps(model: CFlow, normals: Sequence[Normal], held_out: ImageCache, device: torch.device) -> list[float]:
    """Return each tap's mean log-likelihood of `held_out` under its normal distribution (`fit_normals`).

    In nats per dimension, as the flow's. `model` lies on `device`.
    """
    judged = tap_features(model, held_out, device)
    return [normal.mean_log_likelihood(features) for normal, features in zip(normals, judged, strict=True)]
