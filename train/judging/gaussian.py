"""What the simplest model of the same features reaches: a normal distribution per tap, fitted in seconds.

A flow that does not beat it has not been trained.
"""

import torch

from export.model.cflow import CFlow
from train.data.open import ImageCache
from train.loop.normal import fit_normals, tap_features


def gaussian_logps(model: CFlow, images: ImageCache, held_out: ImageCache, device: torch.device) -> list[float]:
    """Return each tap's mean log-likelihood of `held_out` under a normal distribution fitted to `images`.

    In nats per dimension, as the flow's. `model` lies on `device`.
    """
    normals = fit_normals(model, images, device)
    judged = tap_features(model, held_out, device)
    return [normal.mean_log_likelihood(features) for normal, features in zip(normals, judged, strict=True)]
