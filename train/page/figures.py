"""The charts of the evaluation report: where scores lie, and what each threshold would catch."""

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_curve

from train.judging.curve_points import PixelCurves
from train.judging.curves import Rates, rates_above
from train.judging.metrics import FALSE_POSITIVE_LIMIT, Evaluation
from train.page.cases import Decision
from train.page.charts import Axis, Curve, Rule, draw_chart, histogram_curve, thin
from train.page.tables import percent

IMAGE_BINS, POSITION_BINS = 40, 80
HEADROOM = 1.08  # above the highest bar
RATE = "false-positive rate, %"


def image_histogram(judgement: Decision) -> str:
    """Return the chart of image scores, good and anomalous, with the threshold."""
    judged = judgement.judged
    edges = _edges(judged.scores, judgement.threshold, IMAGE_BINS)
    curves = []
    for name, style, chosen in (("good", "good", ~judged.anomalous), ("anomalous", "anomalous", judged.anomalous)):
        counts, _ = np.histogram(judged.scores[chosen], edges)
        curves.append(histogram_curve(f"{name} images ({chosen.sum()})", style, counts, edges))
    return _histogram("Image scores", "image score", "images", curves, judgement.threshold)


def position_histogram(judgement: Decision) -> str | None:
    """Return the chart of the scores of normal and anomalous positions; None without every mask."""
    judged, threshold = judgement.judged, judgement.scale.threshold
    masks = [mask for mask in judged.masks if mask is not None]
    if len(masks) < len(judged.masks):
        return None
    edges = _edges(judged.maps, threshold, POSITION_BINS)
    counts = np.zeros((2, POSITION_BINS), np.int64)
    for anomaly_map, mask in zip(judged.maps, masks, strict=True):
        counts[0] += np.histogram(anomaly_map[~mask], edges)[0]
        counts[1] += np.histogram(anomaly_map[mask], edges)[0]
    totals = counts.sum(axis=1)
    if not totals.all():
        return None
    shares = 100 * counts / totals[:, None]
    curves = [
        histogram_curve(f"normal positions ({totals[0]:,})", "good", shares[0], edges),
        histogram_curve(f"anomalous positions ({totals[1]:,})", "anomalous", shares[1], edges),
    ]
    return _histogram("Scores of positions", "score", "% of their kind", curves, threshold)


def _edges(scores: NDArray[np.float32], threshold: float, bins: int) -> NDArray[np.float64]:
    """Return the edges of equal bins that hold all scores and the threshold."""
    low, high = min(float(scores.min()), threshold), max(float(scores.max()), threshold)
    return np.linspace(low, high if high > low else low + 1, bins + 1)


def _histogram(title: str, x_label: str, y_label: str, curves: list[Curve], threshold: float) -> str:
    low, high = float(curves[0].x[0]), float(curves[0].x[-1])
    top = HEADROOM * max(float(curve.y.max()) for curve in curves)
    rule = Rule(threshold, f"threshold {threshold:.3f}")
    return draw_chart(title, Axis(x_label, low, high), Axis(y_label, 0, top), curves, rule)


def position_rates(judgement: Decision) -> Rates:
    """Return what exactly the positions above the threshold in use are of the normal and of the anomalous ones."""
    masks = [mask for mask in judgement.judged.masks if mask is not None]
    return rates_above(judgement.judged.maps, masks, judgement.scale.threshold)


def roc_chart(judgement: Decision, evaluation: Evaluation, pixels: PixelCurves | None, at: Rates | None) -> str:
    """Return the ROC curves by image and, where there are masks, by position; a ring marks the threshold in use."""
    judged = judgement.judged
    false_positive, true_positive, _ = roc_curve(judged.anomalous, judged.scores)
    here = (float(judgement.called[~judged.anomalous].mean()), float(judgement.called[judged.anomalous].mean()))
    curves = [_rates(f"images, AUROC {percent(evaluation.image_auroc)}", "good", false_positive, true_positive, here)]
    if pixels is not None and at is not None:
        rates = pixels.drawn.false_positive_rate, pixels.drawn.true_positive_rate
        here = (at.false_positive_rate, at.true_positive_rate)
        curves.append(_rates(f"positions, AUROC {percent(evaluation.pixel_auroc)}", "anomalous", *rates, here))
    return draw_chart("ROC curves", Axis(RATE, 0, 100), Axis("true-positive rate, %", 0, 100), curves)


def pro_chart(evaluation: Evaluation, pixels: PixelCurves, at: Rates) -> str:
    """Return the curve of per-region overlap up to the false-positive rate that AUPRO goes to."""
    limit, rate, overlap = FALSE_POSITIVE_LIMIT, pixels.drawn.false_positive_rate, pixels.drawn.region_overlap
    here = (at.false_positive_rate, at.region_overlap)
    inside = int(np.searchsorted(rate, limit, side="right"))
    before = (rate[inside - 1], overlap[inside - 1]) if inside else (0, 0)
    at_limit = float(np.interp(limit, (before[0], rate[inside]), (before[1], overlap[inside])))
    curve = _rates(
        f"per-region overlap, AUPRO {percent(evaluation.aupro)}",
        "anomalous",
        rate[:inside],
        overlap[:inside],
        here if here[0] <= limit else None,
        end=(limit, at_limit),
    )
    return draw_chart("PRO curve", Axis(RATE, 0, 100 * limit), Axis("mean overlap of regions, %", 0, 100), [curve])


def _rates(
    name: str,
    style: str,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    here: tuple[float, float] | None,
    end: tuple[float, float] = (1.0, 1.0),
) -> Curve:
    """Return a curve of rates in [0, 1] from the origin to `end`, thinned and in per cent."""
    x, y = thin(x, y)
    x, y = np.concatenate([[0], x, [end[0]]]), np.concatenate([[0], y, [end[1]]])
    return Curve(name, style, 100 * x, 100 * y, marker=(100 * here[0], 100 * here[1]) if here else None)
