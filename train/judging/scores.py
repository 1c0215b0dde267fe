"""Scores of a trained detector over a set of images, and the constants that are frozen from good ones."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from export.model.cflow import CFlow, DetectorModule
from export.model.score import freeze_constants, freeze_places
from runtime.common.side_by_side import one_ahead
from runtime.engines.sidecar import Threshold
from train.data.open import ImageCache
from train.judging.false_alarms import from_good_images
from train.loop.normal import evenly_spread

BATCH = 8


def log_likelihood_batches(
    model: CFlow, images: ImageCache, device: torch.device, chosen: Sequence[int] | None = None
) -> Iterator[list[Tensor]]:
    """Yield, batch by batch, one (B, h, w) map of log-likelihoods per tap (nats per dimension); of all, or `chosen`."""
    model.eval()
    indices = range(len(images)) if chosen is None else chosen
    for batch in one_ahead(images.batch(indices[start : start + BATCH]) for start in range(0, len(indices), BATCH)):
        frames = torch.from_numpy(batch).to(device)
        with torch.inference_mode():
            yield model.log_likelihoods(frames)


def score_images(
    model: CFlow, images: ImageCache, constants: Tensor, device: torch.device
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the anomaly maps (N, H, W) and image scores (N,) of all images."""
    detector = DetectorModule(model, constants).to(device)
    judged = [detector.judge(batch) for batch in log_likelihood_batches(model, images, device)]
    maps, scores = (torch.cat(parts).cpu().numpy() for parts in zip(*judged, strict=True))
    return maps, scores


def freeze(
    model: CFlow,
    good: ImageCache,
    false_alarm_rate: float,
    device: torch.device,
    apart: ImageCache | None = None,
    trained: ImageCache | None = None,
) -> tuple[Tensor, Threshold]:
    """Return the score's constants (`constant_shape`) over held-out good images, and a threshold of image scores.

    The threshold is from the images `apart`, which had no say in anything else; without them from `good` again, and
    then its method says that it promises less. Where the score knows places, the model is given them: how places
    differ is told by the images it was `trained` on, which are many; how good images score, by those that it was not.
    """
    if model.places:
        _freeze_places(model, trained or good, device)
    batches = list(log_likelihood_batches(model, good, device))
    taps = [torch.cat(tap) for tap in zip(*batches, strict=True)]
    constants = freeze_constants(taps, model.config.score, model.places)
    detector = DetectorModule(model, constants)
    of_threshold = log_likelihood_batches(model, apart, device) if apart else batches
    judged = [detector.judge(batch) for batch in of_threshold]
    scores = torch.cat([score for _, score in judged]).tolist()
    peaks = torch.cat([maps.amax(dim=(1, 2)) for maps, _ in judged]).tolist()
    threshold = from_good_images(scores, false_alarm_rate, peaks, apart=bool(apart))
    return constants.cpu(), threshold


def _freeze_places(model: CFlow, images: ImageCache, device: torch.device) -> None:
    batches = log_likelihood_batches(model, images, device, evenly_spread(len(images)))
    for place, frozen in zip(
        model.places, freeze_places([torch.cat(tap) for tap in zip(*batches, strict=True)]), strict=True
    ):
        place.copy_(frozen)
