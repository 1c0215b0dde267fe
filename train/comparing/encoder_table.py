"""Encoders side by side on one data set: what a memory bank of their features scores, without any training."""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from export.images.labelled import auroc, check_classes
from export.model.cflow import CFlow, ModelConfig
from export.model.encoder import check_taps
from runtime.common.errors import UserError
from train.comparing.memory_bank import bank_scores, fill_bank
from train.data.open import Dataset, ImageCache
from train.fit import build_model

DEFAULT_ROWS = (
    "resnet18:layer1,layer2,layer3",
    "efficientnet_lite0",
    "efficientnet_lite0:features3,features5",
    "efficientnet_lite1",
    "efficientnet_lite2",
)


@dataclass(frozen=True)
class EncoderRow:
    """One encoder to look at: `name`, its taps and where its weights come from."""

    encoder: str
    taps: tuple[str, ...]
    weights: str

    @classmethod
    def parse(cls, text: str) -> "EncoderRow":
        """Read NAME[:TAP,TAP...][=WEIGHTS]. Raises `UserError` for an encoder or a tap that there is not."""
        described, _, weights = text.partition("=")
        name, _, taps = described.partition(":")
        return cls(name, check_taps(name, tuple(filter(None, taps.split(",")))), weights or "imagenet")


def row_auroc(row: EncoderRow, dataset: Dataset, size: tuple[int, int]) -> tuple[float, str]:
    """Return the image AUROC of a memory bank on `row`'s features, and which weights those are."""
    good = ImageCache(dataset.train, size)
    model, loaded = build_model(ModelConfig(row.encoder, row.taps, size, coupling_blocks=1), row.weights, good)
    bank = fill_bank(lambda frames: _encode(model, frames), good)
    images = ImageCache([image.path for image in dataset.test], size, limit_bytes=0)
    scores = bank_scores(lambda frames: _encode(model, frames), bank, images)
    return auroc(np.asarray(scores), np.asarray([image.anomalous for image in dataset.test])), loaded


def _encode(model: CFlow, frames: torch.Tensor) -> list[torch.Tensor]:
    taps: list[torch.Tensor] = model.encoder(model.normalise(frames))
    return taps


def print_encoder_table(rows: Sequence[str], dataset: Dataset, size: tuple[int, int]) -> None:
    """Print each row's image AUROC as it is known; a row whose weights are not to be had says so and is left out."""
    check_classes(np.array([image.anomalous for image in dataset.test], dtype=bool), "the table of encoders")
    print(f"memory bank on {dataset.origin}, {size[0]}x{size[1]}: {len(dataset.train)} good images")
    print("image AUROC %  encoder, taps, weights")
    for row in map(EncoderRow.parse, rows or DEFAULT_ROWS):
        started = time.monotonic()
        try:
            found, loaded = row_auroc(row, dataset, size)
        except UserError as error:
            print(f"{row.encoder}: {error}", file=sys.stderr)
            continue
        seconds = time.monotonic() - started
        print(f"{100 * found:13.1f}  {row.encoder}, {', '.join(row.taps)}, {loaded} ({seconds:.0f} s)", flush=True)
