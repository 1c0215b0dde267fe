"""Curves counted in bins against those through every score."""

import tracemalloc
from operator import attrgetter

import numpy as np
import pytest

from train.judging.binned import BINS, BinnedCurves
from train.judging.curves import SortedCurves, best_pixel_f1, pixel_curves, rates_above
from train.judging.metrics import aupro, pixel_auroc


def case(seed: int = 0, scale: float = 1.0, offset: float = 0.0) -> tuple[np.ndarray, list[np.ndarray]]:
    random = np.random.default_rng(seed)
    masks = np.zeros((6, 90, 110), bool)
    masks[2:, 20:28, 30:50] = masks[3:, 60:63, 70:90] = True
    maps = random.random(masks.shape) ** 2 + masks * random.random(masks.shape)
    return (offset + scale * maps).astype(np.float32), list(masks)


@pytest.mark.parametrize(("scale", "offset"), [(1.0, 0.0), (1e-3, 2.5), (40.0, -17.0)])
def test_the_figures_are_those_of_every_score(scale: float, offset: float) -> None:
    maps, masks = case(1, scale, offset)
    exact, binned = pixel_curves(maps, masks), pixel_curves(maps, masks, exact_pixels=1000)
    assert isinstance(exact, SortedCurves) and isinstance(binned, BinnedCurves)
    assert (binned.normal, binned.anomalous) == (exact.normal, exact.anomalous)
    # 60,000 scores in bins of at most a 500,000th of their range, or of a step of float32: a pair in 10^5 shares one
    assert pixel_auroc(binned) == pytest.approx(pixel_auroc(exact), abs=1e-5)
    for limit in (0.3, 0.05):
        assert aupro(binned, limit) == pytest.approx(aupro(exact, limit), abs=1e-4)
    f1, cut = best_pixel_f1(binned)
    assert f1 == pytest.approx(best_pixel_f1(exact)[0], abs=1e-4)
    rates = rates_above(maps, masks, cut)  # the cut means what the curve says of it
    precision_and_recall = (
        2
        * rates.true_positive_rate
        / (rates.true_positive_rate + exact.normal / exact.anomalous * rates.false_positive_rate + 1)
    )
    assert precision_and_recall == pytest.approx(f1, abs=1e-6)


def test_an_area_is_off_by_less_than_half_of_what_the_pairs_in_one_bin_share() -> None:
    maps, masks = case(2)
    known = list(zip(maps, masks, strict=True))
    exact = pixel_auroc(pixel_curves(maps, masks))
    for bins in (16, 64, 1024):
        curves = BinnedCurves.of(known, bins)
        shared = float((curves._normals * curves._marked).sum()) / curves.normal / curves.anomalous
        assert abs(pixel_auroc(curves) - exact) <= shared / 2
        assert len(curves._normals) <= bins


def test_rates_at_a_cut_are_exact() -> None:
    maps, masks = case(3)
    curves = pixel_curves(maps, masks, exact_pixels=0)
    [piece] = curves.pieces()
    assert (np.diff(piece.thresholds) < 0).all() and (piece.below < piece.thresholds).all()
    assert piece.false_positive_rate[-1] == piece.true_positive_rate[-1] == piece.region_overlap[-1] == 1
    for place in (0, 10, 5000, len(piece.thresholds) - 1):
        rates = rates_above(maps, masks, float(np.nextafter(piece.thresholds[place], np.float32(-np.inf))))
        for name in ("false_positive_rate", "true_positive_rate", "region_overlap"):
            assert attrgetter(name)(piece)[place] == pytest.approx(attrgetter(name)(rates), abs=1e-12), name


def test_all_scores_alike_are_one_bin() -> None:
    masks = [np.eye(8, dtype=bool)]
    for value in (0.0, 2.5, -1e-3):
        curves = pixel_curves(np.full((1, 8, 8), value, np.float32), masks, exact_pixels=0)
        assert pixel_auroc(curves) == 0.5
        assert best_pixel_f1(curves)[0] == pytest.approx(2 / 9)  # all are called: 8 of 64


def test_what_is_in_memory_does_not_grow_with_the_set() -> None:
    peaks = []
    for images in (4, 32):
        maps = np.random.default_rng(0).random((images, 200, 200)).astype(np.float32)
        masks = [np.zeros((200, 200), bool) for _ in range(images)]
        masks[0][:20, :20] = True
        known = list(zip(maps, masks, strict=True))
        tracemalloc.start()
        try:
            BinnedCurves.of(known)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0] < 8 * 8 * BINS  # three counts and what is added to one
