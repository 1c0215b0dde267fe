"""The tables of the evaluation report: what is caught of each defect type, and the figures without a threshold."""

import numpy as np
from numpy.typing import NDArray

from train.judging.metrics import Evaluation
from train.page.cases import Decision, defect_types
from train.page.html import table, text


def counts_table(judgement: Decision) -> str:
    """Return how many images of each defect type, and of all, are caught and missed."""
    judged, called = judgement.judged, judgement.called
    defects = np.array([image.defect for image in judged.images])
    groups = [(text(defect), defects == defect) for defect in defect_types(judged)]
    groups.append(("all defects", judged.anomalous))
    rows = [_count_row(name, judged.scores[chosen], called[chosen]) for name, chosen in groups]
    headings = ("defect type", "images", "caught", "missed", "caught, %", "", "median score")
    return table(headings, rows, numbers=(1, 2, 3, 4, 6), total=True)


def _count_row(name: str, scores: NDArray[np.float32], called: NDArray[np.bool_]) -> list[str]:
    count, caught = len(called), int(called.sum())
    bar = f'<meter value="{caught / count:.4f}" aria-label="share caught"></meter>'
    return [
        name,
        str(count),
        str(caught),
        str(count - caught),
        percent(caught / count),
        bar,
        _score(float(np.median(scores))),
    ]


def figures_table(evaluation: Evaluation) -> str:
    """Return the figures of an evaluation, each with its meaning."""
    best = "at the best score to cut at"
    rows = [
        ["image AUROC", percent(evaluation.image_auroc), "", "how often an anomalous image scores above a good one"],
        ["pixel AUROC", percent(evaluation.pixel_auroc), "", "the same for the positions of the maps"],
        ["AUPRO", percent(evaluation.aupro), "", "mean overlap of defects up to a false-positive rate of 30 %"],
        ["AUPRO-5", percent(evaluation.aupro_5), "", "the same up to 5 %, which forgives fewer false positions"],
        [
            "AUPIMO",
            percent(evaluation.aupimo),
            "",
            "mean share of an image's defect found at next to no false positions",
        ],
        [
            "SegF1",
            percent(evaluation.seg_f1),
            "",
            "F1 by position at the model's own threshold, chosen before this set",
        ],
        *_saturated(evaluation),
        ["image F1", percent(evaluation.image_f1), _score(evaluation.image_f1_threshold), best],
        ["pixel F1", percent(evaluation.pixel_f1), _score(evaluation.pixel_f1_threshold), best],
    ]
    return table(("", "%", "score", "meaning"), rows, numbers=(1, 2))


def _saturated(evaluation: Evaluation) -> list[list[str]]:
    meaning = "AUPRO-5 where a defect counts as found once enough of it is, as the data set says"
    return [] if evaluation.au_spro is None else [["AU-sPRO-5", percent(evaluation.au_spro), "", meaning]]


def percent(value: float | None) -> str:
    """Return a share in per cent, a dash where it is unknown."""
    return "-" if value is None else f"{100 * value:.2f}"


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
