"""How the numbers that a line watches are distributed over held-out good images (`runtime.drift`)."""

import torch
from torch import Tensor

from export.model.cflow import CFlow, DetectorModule
from runtime.drift.numbers import numbers_of
from runtime.drift.taps import roughness
from runtime.images.population import Population
from train.data.open import ImageCache
from train.judging.scores import BATCH, log_likelihood_batches
from train.loop.normal import evenly_spread


def population_of(model: CFlow, constants: Tensor, images: ImageCache, device: torch.device) -> Population:
    """Measure good images that were not trained on, as the line measures frames. Raises `ValueError` for none.

    The picture's numbers, the image score, and what each tap says; of many images some, evenly spread.
    """
    config, chosen = model.config, evenly_spread(len(images))
    grids = {name: rows for name, (_, rows, _) in zip(config.taps, config.tap_sizes, strict=True)}
    detector, rows = DetectorModule(model, constants).to(device), list[dict[str, float]]()
    for start, batch in enumerate(log_likelihood_batches(model, images, device, chosen)):
        maps, scores = (part.cpu().numpy() for part in detector.judge(batch))
        of_batch = chosen[start * BATCH : (start + 1) * BATCH]
        for index, anomaly_map, score in zip(of_batch, maps, scores, strict=True):
            picture = numbers_of(images.decoded(index), config.input_size)
            rows.append({**picture, "score": float(score), **roughness(anomaly_map, grids)})
    return Population.of(rows, grids)
