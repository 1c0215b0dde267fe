"""Figures by pixel against what anomalib 2.7.0's own metrics said of the same maps (`record_anomalib_metrics`)."""

import json

import numpy as np
import pytest

from tests.support.metric_cases import CASES, RECORD, Case, digest
from train.judging.curves import best_pixel_f1, f1_by_pixel, pixel_curves, rates_above
from train.judging.metrics import aupro
from train.judging.pimo import aupimo

RECORDED = json.loads(RECORD.read_text(encoding="utf-8"))
FLOAT32 = 3e-7  # theirs are sums and quotients of float32, whose steps below 1 are 6e-8
# Theirs are read at 300,000 evenly spaced cuts; some thousands of them lie between the bounds here, next to each pixel.
EVEN_CUTS = 2e-6
# What they cannot resolve: one pixel so far above the others that a few dozen cuts are left for the whole range.
COARSE = {"one outlier": 0.025}


def test_the_record_says_what_it_is_of() -> None:
    assert RECORDED["versions"]["anomalib"] == "2.7.0"
    assert RECORDED["cases"].keys() == CASES.keys()


@pytest.mark.parametrize("name", CASES)
def test_figures_are_those_of_anomalib(name: str) -> None:
    case, theirs = CASES[name](), RECORDED["cases"][name]
    assert digest(case) == theirs["sha256"]
    maps, masks = case[0], list(case[1])
    curves = pixel_curves(maps, masks)
    assert curves is not None
    for limit in (0.3, 0.05):
        assert aupro(curves, limit) == pytest.approx(theirs[f"aupro {limit}"], abs=FLOAT32)
    assert best_pixel_f1(curves)[0] == pytest.approx(theirs["F1Max"], abs=FLOAT32)
    rates = rates_above(maps, masks, theirs["cut"])
    f1 = f1_by_pixel(curves, rates.true_positive_rate, rates.false_positive_rate)
    assert f1 == pytest.approx(theirs["F1 at the cut"], abs=FLOAT32)
    own = aupimo(maps, masks)
    assert own is not None
    if isinstance(theirs["aupimo forced"], list):
        assert own == pytest.approx(theirs["aupimo forced"], abs=COARSE.get(name, EVEN_CUTS))


def naive_aupimo(case: Case, bounds: tuple[float, float]) -> list[float]:
    """Walk over every distinct score of a good image from above, and add the pieces of each image's curve."""
    maps, masks = case
    good = [scores for scores, mask in zip(maps, masks, strict=True) if not mask.any()]
    every = np.stack(good).ravel()
    found = []
    for scores, mask in zip(maps, masks, strict=True):
        if not mask.any():
            continue
        own, area, before = scores[mask], 0.0, 0.0
        for cut in sorted(set(every.tolist()), reverse=True):
            rate = float((every >= cut).mean())
            start, end = float((own > cut).mean()), float((own >= cut).mean())
            low, high = max(before, bounds[0]), min(rate, bounds[1])
            if high > low:
                heights = [start + (end - start) * (x - before) / (rate - before) for x in (low, high)]
                area += np.log(high / low) * sum(heights) / 2
            before = rate
        found.append(area / np.log(bounds[1] / bounds[0]))
    return found


@pytest.mark.parametrize("levels", [None, 3, 40])
@pytest.mark.parametrize("bounds", [(1e-5, 1e-4), (0.01, 0.3), (0.5, 1.0)])
def test_aupimo_is_that_of_every_cut(levels: int | None, bounds: tuple[float, float]) -> None:
    rng = np.random.default_rng(5)
    masks = rng.random((5, 9, 8)) < np.array([0, 0.1, 0, 0.4, 0.02])[:, None, None]
    maps = rng.random(masks.shape) + 0.4 * masks
    maps = (np.floor(maps * levels) if levels else maps).astype(np.float32)
    # Both add the same few dozen terms in float64.
    assert aupimo(maps, list(masks), bounds) == pytest.approx(naive_aupimo((maps, masks), bounds), abs=1e-12)


def test_aupimo_of_few_good_pixels_allows_no_false_one() -> None:
    maps, masks = np.zeros((2, 4, 4), np.float32), np.zeros((2, 4, 4), bool)
    masks[1, :2] = True
    maps[0, 0, 0], maps[1, 0] = 2, 3  # half of the defect lies above every good pixel
    assert aupimo(maps, list(masks)) == pytest.approx([0.5], abs=1e-12)
    assert aupimo(maps[1:], list(masks[1:])) is None and aupimo(maps[:1], list(masks[:1])) is None
