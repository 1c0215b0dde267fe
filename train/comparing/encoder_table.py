"""Encoders side by side on one data set: what a memory bank of their features scores, without any training.

With detectors each is trained shortly, too, and its INT8 graph and its speed are measured (`encoder_cost`).
"""

import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from export.images.labelled import auroc, check_classes
from export.model.cflow import CFlow, ModelConfig
from export.model.encoder import check_taps
from runtime.common.errors import UserError
from runtime.common.text_table import align
from train.comparing.encoder_cost import FORMS, ROUNDS, BuiltDetector, build_detector, times_in_turn
from train.comparing.memory_bank import bank_scores, fill_bank
from train.data.open import Dataset, ImageCache
from train.fit import build_model
from train.fit_options import default_config
from train.loop.schedule import Recipe

DEFAULT_ROWS = (
    "resnet18:layer1,layer2,layer3",
    "efficientnet_lite0",
    "efficientnet_lite0:features3,features5",
    "efficientnet_lite1",
    "efficientnet_lite2",
)
SPEED_ROW = "mobilenet_v3_large=random"  # no wheel has its weights


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
    _say_set(dataset, size)
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


DETECTOR_HEADER = (
    "encoder, taps",
    "memory bank: image AUROC %",
    "detector: image",
    "pixel",
    "INT8 costs: image",
    "pixel",
    "encoder ms",
    "x",
    "detector ms",
    "x",
    "INT8 ms",
    "x",
)


def print_detector_table(rows: Sequence[str], dataset: Dataset, size: tuple[int, int], recipe: Recipe) -> None:
    """Print one table of all rows: what `print_encoder_table` says, and a detector's accuracy, INT8 cost and speed.

    Each x is the time as a share of the first row's. Random weights are good for the speed alone.
    """
    _say_set(dataset, size)
    wanted, threads = [EncoderRow.parse(row) for row in rows or (*DEFAULT_ROWS, SPEED_ROW)], torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        made: list[tuple[list[str], BuiltDetector]] = []
        for number, row in enumerate(wanted):
            config = default_config(row.encoder, row.taps, size)
            try:
                built, bank = _built(row, dataset, config, recipe, Path(folder, str(number)))
            except UserError as error:
                print(f"{row.encoder}: {error}", file=sys.stderr)
                continue
            made.append(([f"{row.encoder}, {' '.join(row.taps)}", *_accuracy(bank, built)], built))
            print("  ".join(made[-1][0]), file=sys.stderr, flush=True)
        graphs = [built.graphs[form] for _, built in made for form in FORMS]
        taken = times_in_turn(graphs, size, threads) if graphs else []
    lines = [list(DETECTOR_HEADER)]
    for index, (words, _) in enumerate(made):
        own = taken[index * len(FORMS) : (index + 1) * len(FORMS)]
        times = [cell for ms, first in zip(own, taken, strict=False) for cell in (f"{ms:.1f}", f"{ms / first:.2f}")]
        lines.append([*words, *times])
    print(align(lines))
    print(
        f"{ROUNDS} rounds in turn, medians, {threads} threads; detectors: {recipe.epochs} passes over 64 images at most"
    )


def _built(
    row: EncoderRow, dataset: Dataset, config: ModelConfig, recipe: Recipe, folder: Path
) -> tuple[BuiltDetector, float]:
    """Return a row's detector and the image AUROC of its memory bank."""
    bank = 0.0 if row.weights == "random" else row_auroc(row, dataset, config.input_size)[0]
    return build_detector(dataset, config, recipe, row.weights, folder), bank


def _accuracy(bank: float, built: BuiltDetector) -> list[str]:
    """Return the cells of accuracy in percent, and of what INT8 costs in points; dashes without trained weights."""
    if built.areas is None:
        return ["-"] * 5
    fp32, int8 = built.areas
    by_pixel = ["-", "-"]
    if fp32.pixel is not None and int8.pixel is not None:
        by_pixel = [f"{100 * fp32.pixel:.1f}", f"{100 * (fp32.pixel - int8.pixel):+.2f}"]
    by_image = [f"{100 * fp32.image:.1f}", f"{100 * (fp32.image - int8.image):+.2f}"]
    return [f"{100 * bank:.1f}", by_image[0], by_pixel[0], by_image[1], by_pixel[1]]


def _say_set(dataset: Dataset, size: tuple[int, int]) -> None:
    check_classes(np.array([image.anomalous for image in dataset.test], dtype=bool), "the table of encoders")
    print(f"{dataset.origin}, {size[0]}x{size[1]}: {len(dataset.train)} good images; memory bank: no training")
