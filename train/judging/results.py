"""What an evaluation found of each model, as tables of text and as JSON, beside the paper's figures."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from runtime.common.text_table import align, percent
from train.judging.judged_set import JudgedSet
from train.judging.metrics import Evaluation, evaluate_judged
from train.judging.model_file import ModelDescription
from train.judging.paper_figures import FigureRow, class_rows, format_rows

# figures by pixel that forgive less, by their field of an evaluation; AUPRO and AU-sPRO up to 5 % of false pixels
STRICTER = {"aupro_5": "AUPRO-5 %", "seg_f1": "SegF1 %", "aupimo": "AUPIMO %", "au_spro": "AU-sPRO-5 %"}


@dataclass(frozen=True)
class ModelResult:
    """One model's evaluation, and its mistakes at the threshold that decides its verdicts."""

    model: Path
    facts: ModelDescription
    evaluation: Evaluation
    false_alarms: int
    misses: int


def model_result(model: Path, facts: ModelDescription, judged: JudgedSet) -> ModelResult:
    """Evaluate what `model` says of a labelled set. Raises `UserError` as `evaluate_judged` does."""
    called = judged.scores.astype(np.float64) > facts.threshold.value  # in double precision, as the runtime judges
    false_alarms, misses = int((called & ~judged.anomalous).sum()), int((judged.anomalous & ~called).sum())
    return ModelResult(model, facts, evaluate_judged(judged, facts.threshold.for_map), false_alarms, misses)


def format_results(outcomes: Sequence[ModelResult]) -> str:
    """Return the outcomes as a table of text, one line a model; areas and F1 in percent."""
    rows = [
        [
            "model",
            "image AUROC %",
            "pixel AUROC %",
            "AUPRO %",
            "image F1 %",
            "at",
            "pixel F1 %",
            "at",
            *STRICTER.values(),
        ],
        *(_figures(outcome.model, outcome.evaluation) for outcome in outcomes),
    ]
    return "\n".join([align(rows), *map(_mistakes, outcomes)])


def _figures(model: Path, evaluation: Evaluation) -> list[str]:
    pixel_cut = evaluation.pixel_f1_threshold
    return [
        str(model),
        _percent(evaluation.image_auroc),
        _percent(evaluation.pixel_auroc),
        _percent(evaluation.aupro),
        _percent(evaluation.image_f1),
        f"{evaluation.image_f1_threshold:.4f}",
        _percent(evaluation.pixel_f1),
        "-" if pixel_cut is None else f"{pixel_cut:.4f}",
        *(_percent(getattr(evaluation, field)) for field in STRICTER),
    ]


def _mistakes(outcome: ModelResult) -> str:
    evaluation, threshold = outcome.evaluation, outcome.facts.threshold
    good = evaluation.images - evaluation.anomalous
    false_alarms = f"false alarms {outcome.false_alarms} of {good} good"
    misses = f"misses {outcome.misses} of {evaluation.anomalous} anomalous"
    name = outcome.facts.default_threshold
    return f"{outcome.model} at its threshold {name} {threshold.value:.4f}: {false_alarms}, {misses}"


def _percent(share: float | None) -> str:
    return percent(None if share is None else 100 * share)


def _measured_row(outcome: ModelResult) -> FigureRow:
    facts, evaluation = outcome.facts, outcome.evaluation
    height, width = facts.input_size
    shares = (evaluation.image_auroc, evaluation.pixel_auroc, evaluation.aupro)
    figures = [None if share is None else 100 * share for share in shares]
    setting = f"{facts.encoder}, {height}x{width}, {'+'.join(facts.taps)}"
    return FigureRow("measured", outcome.model.name, setting, *figures)


def format_beside_paper(outcomes: Sequence[ModelResult], class_name: str) -> str:
    """Return the outcomes on a class of MVTec AD above the paper's rows for it, as a table of text in percent."""
    encoders = dict.fromkeys(outcome.facts.encoder for outcome in outcomes)
    rows = dict.fromkeys(row for encoder in encoders for row in class_rows(class_name, encoder))
    ordered = sorted(rows, key=lambda row: row.source)
    return f"{class_name}:\n" + format_rows([*map(_measured_row, outcomes), *ordered])


def result_json(outcome: ModelResult, class_name: str | None) -> dict[str, Any]:
    """Return an outcome as a value for JSON: areas and F1 in [0, 1], the paper's rows for its class in percent."""
    paper = [] if class_name is None else class_rows(class_name, outcome.facts.encoder)
    return {
        **asdict(outcome.evaluation),
        "threshold": {"name": outcome.facts.default_threshold, **asdict(outcome.facts.threshold)},
        "false_alarms": outcome.false_alarms,
        "misses": outcome.misses,
        "paper": {"class": class_name, "percent": [asdict(row) for row in paper]} if paper else None,
    }
