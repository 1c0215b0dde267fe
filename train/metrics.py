"""How well scores separate: areas under the ROC curve, by image and by pixel."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import roc_auc_score

from runtime.errors import UserError


@dataclass(frozen=True)
class Evaluation:
    """Areas under the ROC curve in [0, 1]; `pixel_auroc` is None where no ground-truth masks are given."""

    images: int
    anomalous: int
    image_auroc: float
    pixel_auroc: float | None


def auroc(scores: ArrayLike, anomalous: ArrayLike) -> float:
    """Return the area under the ROC curve. Raises `UserError` if only one class is present."""
    labels = np.asarray(anomalous, dtype=bool).ravel()
    if labels.all() or not labels.any():
        found = "only anomalous ones" if labels.all() else "only good ones"
        raise UserError("an AUROC needs good and anomalous examples", found, "add the other class to test/")
    return float(roc_auc_score(labels, np.asarray(scores).ravel()))


def evaluate_maps(
    maps: NDArray[np.float32], anomalous: Sequence[bool], masks: Sequence[NDArray[np.bool_] | None]
) -> Evaluation:
    """Evaluate anomaly maps (N, H, W); an image's score is its map's maximum.

    Pixels of anomalous images without a ground-truth mask are left out of the pixel AUROC.
    """
    image_auroc = auroc(maps.max(axis=(1, 2)), anomalous)
    known = [index for index, mask in enumerate(masks) if mask is not None]
    truth = np.array([mask for mask in masks if mask is not None])
    pixel_auroc = auroc(maps[known], truth) if truth.any() else None
    return Evaluation(len(maps), sum(anomalous), image_auroc, pixel_auroc)
