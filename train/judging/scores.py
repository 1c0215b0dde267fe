"""Scores of a trained detector over a set of images, and the constants that are frozen from good ones."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from export.model.cflow import CFlow, DetectorModule
from export.model.score import freeze_constants, freeze_places
from export.model.tiled import TiledDetector
from runtime.common.side_by_side import one_ahead
from runtime.engines.sidecar import Threshold
from train.data.open import ImageCache
from train.judging.false_alarms import from_good_images
from train.judging.kept_maps import KeptMaps

BATCH = 8


def log_likelihood_batches(
    model: CFlow, images: ImageCache, device: torch.device, chosen: Sequence[int] | None = None
) -> Iterator[list[Tensor]]:
    """Yield, batch by batch, one (B, h, w) map of log-likelihoods per tap (nats per dimension); of all, or `chosen`.

    Of the inputs of the network: of a tiled detector these are tiles.
    """
    model.eval()
    indices = range(len(images)) if chosen is None else chosen
    parts = [indices[start : start + BATCH] for start in range(0, len(indices), BATCH)]
    for part, batch in zip(parts, one_ahead(map(images.batch, parts)), strict=True):
        frames = torch.from_numpy(batch).to(device)
        with torch.inference_mode():
            yield model.log_likelihoods(frames, images.corners(part))


class Judge:
    """What a detector says of whole images: where it is tiled, of all tiles of a frame together."""

    def __init__(self, model: CFlow, constants: Tensor, device: torch.device) -> None:
        self.detector, self.device = DetectorModule(model, constants).to(device), device
        self.at_once = BATCH if model.config.tiles is None else model.config.tiles.count  # inputs

    def of(self, log_likelihoods: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the maps (B, H, W) and scores (B,) of whole images from their inputs', (`at_once`, h, w) per tap."""
        if self.detector.model.config.tiles is None:
            return self.detector.judge(log_likelihoods)
        with torch.inference_mode():
            anomaly_map, score = TiledDetector(self.detector).judge(log_likelihoods)
        return anomaly_map[None], score[None]

    def each(
        self, images: ImageCache, chosen: Sequence[int] | None = None
    ) -> Iterator[tuple[NDArray[np.float32], float]]:
        """Yield the map (H, W) and the score of all images in turn, or of those `chosen`."""
        numbers = range(len(images.paths)) if chosen is None else chosen
        inputs = [number * images.per_image + tile for number in numbers for tile in range(images.per_image)]
        batches = log_likelihood_batches(self.detector.model, images, self.device, inputs)
        for together in _regrouped(batches, self.at_once):
            maps, scores = (part.cpu().numpy() for part in self.of(together))
            yield from zip(maps, scores.tolist(), strict=True)


def _regrouped(batches: Iterator[list[Tensor]], count: int) -> Iterator[list[Tensor]]:
    """Yield as (`count`, h, w) per tap, the last of them maybe fewer, what comes in other batches."""
    waiting: list[list[Tensor]] = []
    for batch in batches:
        waiting.append(batch)
        while sum(len(part[0]) for part in waiting) >= count:
            whole = [torch.cat(tap) for tap in zip(*waiting, strict=True)]
            yield [tap[:count] for tap in whole]
            rest = [tap[count:] for tap in whole]
            waiting = [rest] if len(rest[0]) else []
    if waiting:
        yield [torch.cat(tap) for tap in zip(*waiting, strict=True)]


def score_images(
    model: CFlow, images: ImageCache, constants: Tensor, device: torch.device
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the anomaly maps (N, H, W) and image scores (N,) of all images."""
    kept = KeptMaps(len(images.paths), model.config.judged_size)
    scores = [kept.take(anomaly_map, score) for anomaly_map, score in Judge(model, constants, device).each(images)]
    return kept.maps, np.array(scores, np.float32)


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
    Of a tiled detector the constants are of tiles, and the threshold is of frames.
    """
    if model.places:
        _freeze_places(model, trained or good, device)
    batches = list(log_likelihood_batches(model, good, device))
    taps = [torch.cat(tap) for tap in zip(*batches, strict=True)]
    constants = freeze_constants(taps, model.config.score, model.places)
    judge = Judge(model, constants, device)
    if apart:
        judged = [(float(anomaly_map.max()), score) for anomaly_map, score in judge.each(apart)]
    else:
        pairs = map(judge.of, _regrouped(iter(batches), judge.at_once))
        judged = [
            pair for maps, scores in pairs for pair in zip(maps.amax((1, 2)).tolist(), scores.tolist(), strict=True)
        ]
    peaks, scores = (list(values) for values in zip(*judged, strict=True))
    threshold = from_good_images(scores, false_alarm_rate, peaks, apart=bool(apart))
    return constants.cpu(), threshold


def _freeze_places(model: CFlow, images: ImageCache, device: torch.device) -> None:
    batches = log_likelihood_batches(model, images, device, images.spread())
    for place, frozen in zip(
        model.places, freeze_places([torch.cat(tap) for tap in zip(*batches, strict=True)]), strict=True
    ):
        place.copy_(frozen)
