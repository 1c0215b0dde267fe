"""What the curves by pixel cost in memory, and that they still say what every distinct score says."""

import tracemalloc

import numpy as np
import pytest

from train.judging.curves import best_pixel_f1, pixel_curves
from train.judging.metrics import aupro, pixel_auroc
from train.judging.packed import region_areas

BYTES_A_PIXEL = 12  # at most, beside the maps; sorted copies of everything took 48


def plain_figures(maps: np.ndarray, masks: np.ndarray) -> list[float]:
    """Return pixel AUROC, AUPRO and best F1 from one sort of all scores and a point for each."""
    order = np.argsort(-maps.ravel(), kind="stable")
    truth, scores = masks.ravel()[order], maps.ravel()[order]
    weights = np.zeros(masks.shape)
    for mask, weight in zip(masks, weights, strict=True):
        if mask.any():
            weight[mask] = 1 / region_areas(mask)
    last = np.append(scores[1:] != scores[:-1], True)
    false, true = np.cumsum(~truth)[last] / (~truth).sum(), np.cumsum(truth)[last] / truth.sum()
    overlap = np.cumsum(weights.ravel()[order])[last] / weights.sum()
    grid = np.minimum(np.concatenate([[0], false]), 0.3)
    y = np.concatenate([[0], overlap])
    crossing = int(np.searchsorted(false, 0.3, side="right")) + 1
    y[crossing:] = np.interp(0.3, np.concatenate([[0], false]), y)
    f1 = 2 * np.cumsum(truth)[last] / (np.flatnonzero(last) + 1 + truth.sum())
    return [
        float(np.trapezoid(np.concatenate([[0], true]), np.concatenate([[0], false]))),
        float(np.trapezoid(y, grid) / 0.3),
        float(f1.max()),
    ]


@pytest.mark.parametrize("share", [0.002, 0.02, 0.05, 0.2, 0.5, 0.98])
def test_the_curves_take_few_bytes_a_pixel(share: float) -> None:
    rng = np.random.default_rng(1)
    masks = np.zeros((20, 200, 200), bool)
    images = 10 if share < 0.5 else 0  # a defect in every second image, or in all of them
    masks[images:, : round(200 * share * len(masks) / (len(masks) - images))] = True
    maps = (rng.random(masks.shape) + 0.5 * masks * rng.random(masks.shape)).astype(np.float32)
    expected = plain_figures(maps, masks)
    known = list(masks)
    tracemalloc.start()
    try:
        curves = pixel_curves(maps, known)
        assert curves is not None
        found = [pixel_auroc(curves), aupro(curves), best_pixel_f1(curves)[0]]
        assert len(curves.drawn.thresholds)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert masks.mean() == pytest.approx(share, rel=0.3)
    assert peak <= BYTES_A_PIXEL * maps.size
    # Sums of a million terms in float64, in another order.
    assert found == pytest.approx(expected, abs=1e-9)
