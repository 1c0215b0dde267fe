"""What came out of an ablation: each variant's figures, from its decoders' log-likelihoods, and their table."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from export.images.labelled import auroc, read_masks
from export.model.cflow import ModelConfig
from export.model.score import Score, anomaly_map, freeze_constants, image_score, likelihood_ratios
from runtime.common.text_table import align, percent
from train.comparing.decoder_run import DecoderRun
from train.comparing.variants import DecoderKey, Variant
from train.data.open import Dataset
from train.judging.judged_set import JudgedSet
from train.judging.metrics import Evaluation, evaluate_judged, pixel_auroc

BATCH = 8  # images whose maps are computed at a time


@dataclass(frozen=True)
class TestFigures:
    """AUROC by image and by pixel in [0, 1]; by pixel None where no ground truth marks a pixel."""

    image_auroc: float
    pixel_auroc: float | None


@dataclass(frozen=True)
class PaperScore:
    """The paper's score with each tap's maximum taken over the held-out images, and over the whole test set."""

    frozen: TestFigures
    test_maximum: TestFigures

    @property
    def difference(self) -> TestFigures:
        """Frozen minus test maximum."""
        mine, theirs = self.frozen, self.test_maximum
        of_pixels = None
        if mine.pixel_auroc is not None and theirs.pixel_auroc is not None:
            of_pixels = mine.pixel_auroc - theirs.pixel_auroc
        return TestFigures(mine.image_auroc - theirs.image_auroc, of_pixels)


@dataclass(frozen=True)
class VariantResult:
    """One row of the table: `held_out_logp` in nats per dimension, `minutes` of its decoders' training in all.

    `evaluation` is by the score that the model is configured for.
    """

    variant: Variant
    held_out_logp: float
    evaluation: Evaluation
    minutes: float
    paper_score: PaperScore | None


class Judge:
    """Turns decoders' log-likelihoods of the test images into figures."""

    def __init__(self, dataset: Dataset, config: ModelConfig) -> None:
        self.images = dataset.test
        self.config = config
        self.masks = read_masks(dataset.test, config.input_size)

    def result(self, variant: Variant, runs: Mapping[DecoderKey, DecoderRun], *, test_maximum: bool) -> VariantResult:
        """Return `variant`'s row; `test_maximum` also compares the paper's score by either maximum."""
        own = [runs[key] for key in variant.decoders(len(self.config.taps))]
        held_out, test = [run.held_out for run in own], [run.test for run in own]
        return VariantResult(
            variant=variant,
            held_out_logp=float(torch.stack([logp.mean() for logp in held_out]).mean()),
            evaluation=evaluate_judged(self._judged(held_out, test, self.config.score)),
            minutes=sum(run.minutes for run in own),
            paper_score=PaperScore(self._paper_areas(held_out, test), self._paper_areas(test, test))
            if test_maximum
            else None,
        )

    def _paper_areas(self, reference: list[Tensor], test: list[Tensor]) -> TestFigures:
        judged = self._judged(reference, test, "paper")
        curves = judged.curves
        of_pixels = None if curves is None else pixel_auroc(curves)
        return TestFigures(auroc(judged.scores, judged.anomalous), of_pixels)

    def _judged(self, reference: list[Tensor], test: list[Tensor], score: Score) -> JudgedSet:
        """Score the test images with constants from the `reference` images; each a list of (N, h, w), one per tap."""
        constants = freeze_constants(reference, score)
        maps: list[NDArray[np.float32]] = []
        scores: list[NDArray[np.float32]] = []
        for batch in zip(*(torch.split(logp, BATCH) for logp in test), strict=True):
            ratios = likelihood_ratios(batch, constants)
            summed = anomaly_map(ratios, self.config.input_size)
            maps.append(summed.numpy())
            scores.append(image_score(ratios, summed, score, constants).numpy())
        return JudgedSet(self.images, np.concatenate(maps), np.concatenate(scores), self.masks)


def format_results(results: Sequence[VariantResult]) -> str:
    """Return the results as a table, and below it the paper's score by either maximum where it was asked for."""
    columns = ["held-out logp", "pixel AUROC %", "image AUROC %", "AUPRO %", "minutes"]
    rows = [["blocks", "taps", "flow", "permutation", *columns], *map(_row, results)]
    comparisons = [line for result in results for line in _comparison(result)]
    return "\n".join([align(rows, left=4), *comparisons])


def _row(result: VariantResult) -> list[str]:
    flow, evaluation = result.variant.flow, result.evaluation
    figures = (evaluation.pixel_auroc, evaluation.image_auroc, evaluation.aupro)
    return [
        str(flow.coupling_blocks),
        str(result.variant.taps),
        flow.condition,
        flow.permutation,
        f"{result.held_out_logp:.3f}",
        *(_percent(figure) for figure in figures),
        f"{result.minutes:.1f}",
    ]


def _comparison(result: VariantResult) -> Iterator[str]:
    if result.paper_score is None:
        return
    yield f"{result.variant.flow}, taps {result.variant.taps}: the paper's score, maxima over held-out | test images"
    both = (result.paper_score.frozen, result.paper_score.test_maximum, result.paper_score.difference)
    for name in ("image_auroc", "pixel_auroc"):
        frozen, of_test, difference = (getattr(areas, name) for areas in both)
        if difference is not None:
            title = name.replace("_auroc", " AUROC %")
            yield f"  {title}  {_percent(frozen)} | {_percent(of_test)}, difference {100 * difference:+.3f} points"


def _percent(share: float | None) -> str:
    return percent(None if share is None else 100 * share)


def result_json(result: VariantResult) -> dict[str, Any]:
    """Return a result as a value for JSON: areas and F1 in [0, 1]."""
    paper = result.paper_score
    return {
        "taps": result.variant.taps,
        **asdict(result.variant.flow),
        "held_out_logp": result.held_out_logp,
        **asdict(result.evaluation),
        "minutes": result.minutes,
        "paper_score": None if paper is None else {**asdict(paper), "difference": asdict(paper.difference)},
    }
