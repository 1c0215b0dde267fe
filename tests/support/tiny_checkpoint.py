"""A real checkpoint that is quick to make: one tap, one coupling block, seeded random weights, not trained."""

from collections.abc import Sequence
from pathlib import Path

import torch

from export.model.cflow import ModelConfig
from export.model.checkpoint import Checkpoint, save_checkpoint
from export.model.score import Score
from train.data.open import ImageCache
from train.fit import build_model
from train.judging.scores import freeze


def write_tiny_checkpoint(
    path: Path, good: Sequence[Path], size: tuple[int, int], data_origin: str = "", score: Score = "deviation"
) -> Path:
    """Write a detector for `size` = (height, width) whose constants come from the images `good`; return `path`."""
    images = ImageCache(good, size)
    config = ModelConfig("resnet18", ("layer1",), size, coupling_blocks=1, score=score)
    model, weights = build_model(config, "random", images)
    constants, threshold = freeze(model, images, 0.01, torch.device("cpu"))
    thresholds = {"good_quantile": threshold}
    save_checkpoint(path, Checkpoint(model, constants, thresholds, "good_quantile", weights, "", data_origin))
    return path
