"""How good a detector is over several seeds: `python -m train.benchmark seeds`, a row a seed, their mean and spread.

Everything is drawn anew with a seed: the weights, the order of the images and which of them are held out. Beside it
stand a memory bank of the same encoder's features, which needs no training, and the paper's figures of the class.
"""

import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from export.images.labelled import check_classes, read_masks
from export.model.cflow import CFlow, ModelConfig
from runtime.common.text_table import align, percent
from train.comparing.memory_bank import bank_maps, fill_bank
from train.data.open import Dataset, ImageCache
from train.fit import build_model, fit
from train.judging.judged_set import JudgedSet, judge
from train.judging.metrics import Evaluation, evaluate_judged
from train.judging.paper_figures import class_rows, find_class, format_rows
from train.loop.schedule import Recipe

HEADING = ["", "image AUROC %", "pixel AUROC %", "AUPRO %", "minutes"]


@dataclass(frozen=True)
class SeedRow:
    """One trained detector, or the memory bank: areas in percent, those by pixel None where a mask is missing."""

    name: str
    image_auroc: float
    pixel_auroc: float | None
    aupro: float | None
    minutes: float

    @classmethod
    def of(cls, name: str, evaluation: Evaluation, started: float) -> "SeedRow":
        """Return the row of what was begun at `started` (`time.monotonic`)."""
        pixel, aupro = (None if area is None else 100 * area for area in (evaluation.pixel_auroc, evaluation.aupro))
        return cls(name, 100 * evaluation.image_auroc, pixel, aupro, (time.monotonic() - started) / 60)

    def cells(self) -> list[str]:
        """Return the row's cells."""
        return [self.name, *map(percent, (self.image_auroc, self.pixel_auroc, self.aupro)), f"{self.minutes:.1f}"]


def seed_rows(
    dataset: Dataset, config: ModelConfig, recipe: Recipe, weights: str, seeds: Sequence[int]
) -> Iterator[SeedRow]:
    """Train a detector for each of `seeds` and judge it on the test images."""
    with tempfile.TemporaryDirectory() as folder:
        for seed in seeds:
            started, out = time.monotonic(), Path(folder) / f"seed{seed}.pt"
            fit(dataset, replace(config, seed=seed), replace(recipe, seed=seed), weights, out)
            minutes = (time.monotonic() - started) / 60  # of training, without the judging
            row = SeedRow.of(f"seed {seed}", evaluate_judged(judge(out, dataset.test)), started)
            yield replace(row, minutes=minutes)


def bank_row(dataset: Dataset, config: ModelConfig, weights: str) -> SeedRow:
    """Judge a memory bank of the detector's own taps on the test images; its minutes are of filling and judging."""
    started = time.monotonic()
    good = ImageCache(dataset.train, config.input_size)
    model, _ = build_model(replace(config, coupling_blocks=1, pooled=(), halved=()), weights, good)
    images = ImageCache([image.path for image in dataset.test], config.input_size, limit_bytes=0)
    bank = fill_bank(lambda frames: _encode(model, frames), good)
    maps, scores = bank_maps(lambda frames: _encode(model, frames), bank, images)
    judged = JudgedSet(dataset.test, maps, scores, read_masks(dataset.test, config.input_size))
    return SeedRow.of(f"memory bank ({', '.join(config.taps)})", evaluate_judged(judged), started)


@torch.no_grad()
def _encode(model: CFlow, frames: torch.Tensor) -> list[torch.Tensor]:
    return model.features(frames)


def format_seeds(rows: Sequence[SeedRow], bank: SeedRow) -> str:
    """Return the table: a row a seed, of several their mean and standard deviation, and the memory bank."""
    cells = [HEADING, *(row.cells() for row in rows)]
    if len(rows) > 1:
        figures = [[getattr(row, name) for row in rows] for name in ("image_auroc", "pixel_auroc", "aupro")]
        minutes = statistics.mean(row.minutes for row in rows)
        cells.append([f"mean ± deviation of {len(rows)}", *map(_spread, figures), f"{minutes:.1f}"])
    return align([*cells, bank.cells()])


def _spread(figures: Sequence[float | None]) -> str:
    known = [figure for figure in figures if figure is not None]
    if len(known) < len(figures):
        return percent(None)
    return f"{statistics.mean(known):.2f} ± {statistics.stdev(known):.2f}"


def print_seeds(
    dataset: Dataset, config: ModelConfig, recipe: Recipe, weights: str, seeds: Sequence[int]
) -> list[SeedRow]:
    """Train over the seeds, print each row as it is known and the table at the end; return the rows."""
    check_classes(np.array([image.anomalous for image in dataset.test], dtype=bool), "the table of seeds")
    height, width = config.input_size
    print(
        f"{dataset.origin}, {config.encoder}, taps {', '.join(config.taps)}, {height}x{width}, score {config.score}, "
        f"{recipe.epochs} passes, the encoder's weights: {weights}",
        flush=True,
    )
    rows = []
    for row in seed_rows(dataset, config, recipe, weights, seeds):
        print("  ".join(row.cells()), flush=True)
        rows.append(row)
    print(format_seeds(rows, bank_row(dataset, config, weights)))
    name = find_class(dataset.root.resolve().name)
    if name is not None:
        print("\n" + format_rows(class_rows(name, config.encoder)))
    return rows
