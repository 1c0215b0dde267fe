"""What a few bad images among the good ones cost: `python -m train.benchmark robust --bad 0.05 --data DIR`.

Anomalous test images take the place of good training images, drawn by the seed. So both rows train on as many images,
split alike, and the bad ones come where good ones would: among those that are trained on, that choose the pass,
freeze the score's constants and set the threshold. Both rows are judged on the test images that are left.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from export.model.cflow import ModelConfig
from runtime.common.errors import UserError
from runtime.images.preprocess import PLAIN
from train.data.open import Dataset
from train.fit import fit
from train.judging.judged_set import judge
from train.judging.metrics import Evaluation, evaluate_judged
from train.judging.suspects import SHOWN, find_suspects
from train.loop.schedule import Recipe

MOST_LOST = 0.01  # of image AUROC


@dataclass(frozen=True)
class Mixed:
    """A data set with the anomalous test images `bad` in its training images, and without them in either set."""

    clean: Dataset
    contaminated: Dataset
    bad: tuple[Path, ...]


@dataclass(frozen=True)
class MixedRow:
    """One training: its figures and false alarms, how many bad images are among the `SHOWN` most suspicious training
    images, how many stand out of the good ones, and how many of those are bad.
    """

    name: str
    evaluation: Evaluation
    false_alarms: int
    shown: int
    standing_out: int
    bad_standing_out: int

    def __str__(self) -> str:
        areas = (self.evaluation.image_auroc, self.evaluation.pixel_auroc, self.evaluation.aupro)
        figures = " ".join(f"{'-' if area is None else f'{100 * area:.2f}':>7}" for area in areas)
        found = (
            f"{self.shown} of {SHOWN} shown are bad; {self.standing_out} stand out, {self.bad_standing_out} of them bad"
        )
        return f"{self.name:13} {figures} {self.false_alarms:>12}  {found}"


MIXED_HEADER = f"{'training':13} {'image':>7} {'pixel':>7} {'AUPRO':>7} {'false alarms':>12}  suspects"


def mix(dataset: Dataset, share: float, seed: int) -> Mixed:
    """Let anomalous test images take the place of `share` of the good training images, at least of one.

    Raises `UserError` where too few anomalous ones would be left to test on.
    """
    if not 0 < share < 1:
        raise UserError("--bad must lie between 0 and 1", str(share))
    count = max(1, round(share * len(dataset.train)))
    anomalous = [image for image in dataset.test if image.anomalous]
    if count >= len(anomalous):
        needed = f"{dataset.root} must hold more than {count} anomalous test images"
        raise UserError(needed, str(len(anomalous)), "lower --bad, or fewer --images")
    rng = np.random.default_rng(seed)
    taken = {anomalous[index].path for index in rng.choice(len(anomalous), count, replace=False)}
    bad = tuple(image.path for image in anomalous if image.path in taken)
    places = rng.choice(len(dataset.train), count, replace=False)
    train = list(dataset.train)
    for place, path in zip(places, bad, strict=True):
        train[place] = path
    test = tuple(image for image in dataset.test if image.path not in taken)
    return Mixed(replace(dataset, test=test), replace(dataset, train=tuple(train), test=test), bad)


def mixed_rows(mixed: Mixed, config: ModelConfig, recipe: Recipe, weights: str, folder: Path) -> Iterator[MixedRow]:
    """Train on the clean images and on the contaminated ones, checkpoints in `folder`; yield both rows."""
    for name, dataset in (("clean", mixed.clean), ("contaminated", mixed.contaminated)):
        out = folder / f"{name}.pt"
        checkpoint = fit(dataset, config, recipe, weights, out)
        judged = judge(out, dataset.test)
        threshold = checkpoint.thresholds[checkpoint.default_threshold]
        alarms = int((judged.scores[~judged.anomalous] > threshold.value).sum())
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        suspects = find_suspects(checkpoint.model.to(device), dataset.train, checkpoint.constants, device, PLAIN)
        hits = [path in mixed.bad for path in suspects.paths]
        seen = suspects.standing_out
        yield MixedRow(name, evaluate_judged(judged), alarms, sum(hits), seen, sum(hits[:seen]))
