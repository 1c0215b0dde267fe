"""How the numbers that a line watches are distributed over held-out good images (`runtime.drift`)."""

import torch
from torch import Tensor

from export.model.cflow import CFlow
from runtime.drift.numbers import numbers_of
from runtime.drift.taps import roughness
from runtime.images.folders import evenly_spread
from runtime.images.population import Population
from train.data.open import ImageCache
from train.judging.scores import Judge


def population_of(model: CFlow, constants: Tensor, images: ImageCache, device: torch.device) -> Population:
    """Measure good images that were not trained on, as the line measures frames. Raises `ValueError` for none.

    The picture's numbers, the image score, and what each tap says; of many images some, evenly spread. Nothing is said
    of a tiled detector's taps: its map is put together of many, and bends at no tap's lines.
    """
    config, chosen = model.config, evenly_spread(len(images.paths))
    sizes = zip(config.taps, config.tap_sizes, strict=True)
    grids = {} if config.tiles else {name: rows for name, (_, rows, _) in sizes}
    rows, pictures = list[dict[str, float]](), dict[int, dict[str, float]]()
    images.look = lambda index, frame: pictures.update({index: numbers_of(frame, config.judged_size)})
    judged = Judge(model, constants, device).each(images, chosen)
    for index, (anomaly_map, score) in zip(chosen, judged, strict=True):
        if index not in pictures:  # it was decoded before
            images.decoded(index)
        rows.append({**pictures[index], "score": score, **roughness(anomaly_map, grids)})
    images.look = None
    return Population.of(rows, grids)
