"""Areas and best cuts against scikit-learn, pair counting and a loop over every threshold and region."""

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import precision_recall_curve, roc_auc_score, roc_curve

from export.images.labelled import auroc
from runtime.common.errors import UserError
from train.data.open import GOOD, LabelledImage
from train.judging.curve_points import CurvePoints, PixelCurves
from train.judging.curves import PIECE, best_pixel_f1, pixel_curves, rates_above
from train.judging.judged_set import JudgedSet
from train.judging.metrics import aupro, evaluate_judged, pixel_auroc

# Both sides add the same few hundred terms in float64, in another order.
ROUNDING = 1e-12

Case = tuple[np.ndarray, list[np.ndarray]]


def flood_regions(mask: np.ndarray) -> list[np.ndarray]:
    """Return the 8-connected regions of a mask by flooding, one mask each."""
    left, regions = mask.copy(), []
    while left.any():
        region, queue = np.zeros_like(mask), deque([tuple(np.argwhere(left)[0])])
        left[queue[0]] = False
        while queue:
            row, column = queue.popleft()
            region[row, column] = True
            for r in range(max(row - 1, 0), min(row + 2, mask.shape[0])):
                for c in range(max(column - 1, 0), min(column + 2, mask.shape[1])):
                    if left[r, c]:
                        left[r, c] = False
                        queue.append((r, c))
        regions.append(region)
    return regions


def naive_curve(maps: np.ndarray, masks: Sequence[np.ndarray]) -> list[tuple[float, float]]:
    """Return (false-positive rate, mean overlap of regions) of every cut, one threshold and one region at a time."""
    regions = [(index, region) for index, mask in enumerate(masks) for region in flood_regions(mask)]
    good = ~np.stack(masks)
    points = [(0.0, 0.0)]
    for cut in sorted(set(maps.ravel().tolist()), reverse=True):
        called = maps >= cut
        overlaps = [called[index][region].mean() for index, region in regions]
        points.append((float(called[good].mean()), float(np.mean(overlaps))))
    return points


def naive_aupro(maps: np.ndarray, masks: Sequence[np.ndarray], limit: float = 0.3) -> float:
    """Add the trapezoids of the naive curve, the last one cut off at the limit."""
    points, area = naive_curve(maps, masks), 0.0
    for (x0, y0), (x1, y1) in pairwise(points):
        if x0 >= limit or x1 == x0:
            continue
        end = min(x1, limit)
        y_end = y0 + (y1 - y0) * (end - x0) / (x1 - x0)
        area += (end - x0) * (y0 + y_end) / 2
    return area / limit


def random_case(seed: int, levels: int | None = None) -> Case:
    """Return 4 maps that see their regions dimly: one good, regions of many sizes; `levels` distinct scores."""
    rng = np.random.default_rng(seed)
    masks = [rng.random((12, 14)) < share for share in (0.0, 0.03, 0.1, 0.3)]
    maps = rng.random((4, 12, 14)) + 0.4 * np.stack(masks)
    if levels:
        maps = np.floor(maps * levels)
    return maps.astype(np.float32), masks


def mask_of(*pixels: tuple[int, int], size: tuple[int, int] = (6, 6)) -> np.ndarray:
    mask = np.zeros(size, bool)
    mask[tuple(zip(*pixels, strict=True))] = True
    return mask


def adversarial_cases() -> dict[str, Case]:
    rng = np.random.default_rng(7)
    maps = rng.random((2, 6, 6), np.float32)
    empty = np.zeros((6, 6), bool)
    one = [empty, mask_of((2, 2))]
    truth = np.stack([empty, mask_of((0, 0), (0, 1), (4, 4))])
    return {
        "constant maps": (np.ones((2, 6, 6), np.float32), one),
        "one-pixel region": (maps, one),
        "diagonal neighbours": (maps, [empty, mask_of((1, 1), (2, 2), (3, 1), (5, 5))]),
        "region fills an image": (maps, [empty, np.ones((6, 6), bool)]),
        "regions touch in different images": (maps, [mask_of((5, 0)), mask_of((0, 0))]),
        "perfect": (truth.astype(np.float32), list(truth)),
        "inverted": (1 - truth.astype(np.float32), list(truth)),
        "large and tiny regions": (maps, [empty, mask_of(*[(r, c) for r in range(4) for c in range(6)], (5, 5))]),
        "neighbouring floats": (np.where(truth, 1, np.nextafter(np.float32(1), 0)).astype(np.float32), list(truth)),
        "both zeros": (np.where(rng.random((2, 6, 6)) < 0.5, -0.0, 0.0).astype(np.float32), one),
    }


CASES: dict[str, Case] = {
    **{f"random {seed}": random_case(seed) for seed in range(4)},
    **{f"{levels} levels": random_case(9, levels) for levels in (1, 2, 5)},
    **adversarial_cases(),
}


@pytest.fixture(autouse=True, params=[1, 2, 5, PIECE])
def pieces(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many defect pixels are looked at together, the figures are the same."""
    monkeypatch.setattr("train.judging.curves.PIECE", request.param)


def corners_of(curves: PixelCurves) -> CurvePoints:
    parts = zip(*(vars(piece).values() for piece in curves.pieces()), strict=True)
    return CurvePoints(*(np.concatenate(part) for part in parts))


def curves_of(case: Case) -> PixelCurves:
    curves = pixel_curves(*case)
    assert curves is not None
    return curves


@pytest.mark.parametrize("name", CASES)
def test_aupro_is_that_of_every_threshold_and_region(name: str) -> None:
    maps, masks = CASES[name]
    for limit in (0.3, 0.05, 1.0):
        assert aupro(curves_of(CASES[name]), limit) == pytest.approx(naive_aupro(maps, masks, limit), abs=ROUNDING)


@pytest.mark.parametrize("name", CASES)
def test_the_curve_by_pixel_is_scikit_learns(name: str) -> None:
    maps, masks = CASES[name]
    curves, truth = curves_of(CASES[name]), np.stack(masks).ravel()
    false_positive, true_positive, thresholds = roc_curve(truth, maps.ravel(), drop_intermediate=False)
    corners = corners_of(curves)
    # Ours are the corners alone: each is one of theirs, at the same cut, and theirs lie on the lines between ours.
    place = np.searchsorted(-thresholds, -corners.thresholds)
    np.testing.assert_array_equal(thresholds[place], corners.thresholds)
    np.testing.assert_allclose(corners.false_positive_rate, false_positive[place], rtol=0, atol=ROUNDING)
    np.testing.assert_allclose(corners.true_positive_rate, true_positive[place], rtol=0, atol=ROUNDING)
    x, y = (np.concatenate([[0], rate]) for rate in (corners.false_positive_rate, corners.true_positive_rate))
    for rate, found in zip(false_positive, true_positive, strict=True):
        on_line = np.abs(x - rate) <= ROUNDING
        low, high = (y[on_line].min(), y[on_line].max()) if on_line.any() else [np.interp(rate, x, y)] * 2
        assert low - ROUNDING <= found <= high + ROUNDING
    assert pixel_auroc(curves) == pytest.approx(roc_auc_score(truth, maps.ravel()), abs=ROUNDING)
    assert (curves.normal, curves.anomalous) == ((~truth).sum(), truth.sum())


@pytest.mark.parametrize("name", CASES)
def test_the_best_f1_by_pixel_is_scikit_learns_and_its_cut_reaches_it(name: str) -> None:
    maps, masks = CASES[name]
    truth = np.stack(masks)
    precision, recall, _ = precision_recall_curve(truth.ravel(), maps.ravel())
    f1, cut = best_pixel_f1(curves_of(CASES[name]))
    # The last of scikit-learn's points calls nothing anomalous.
    assert f1 == pytest.approx((2 * precision * recall / np.maximum(precision + recall, 1e-9))[:-1].max(), abs=ROUNDING)
    for called in (maps > cut, maps.astype(np.float64) > cut):  # compared in either precision
        assert 2 * (called & truth).sum() / (called.sum() + truth.sum()) == pytest.approx(f1, abs=ROUNDING)


@pytest.mark.parametrize("name", CASES)
def test_the_rates_of_one_cut_are_counted(name: str) -> None:
    maps, masks = CASES[name]
    truth = np.stack(masks)
    regions = [(index, region) for index, mask in enumerate(masks) for region in flood_regions(mask)]
    for cut in (-np.inf, float(np.median(maps)), float(maps.max())):
        rates = rates_above(maps, masks, cut)
        assert rates.false_positive_rate == pytest.approx((maps > cut)[~truth].mean(), abs=ROUNDING)
        assert rates.true_positive_rate == pytest.approx((maps > cut)[truth].mean(), abs=ROUNDING)
        overlap = np.mean([(maps[index] > cut)[region].mean() for index, region in regions])
        assert rates.region_overlap == pytest.approx(overlap, abs=ROUNDING)


def test_known_values() -> None:
    perfect, inverted = curves_of(CASES["perfect"]), curves_of(CASES["inverted"])
    assert (aupro(perfect), pixel_auroc(perfect), best_pixel_f1(perfect)[0]) == (1, 1, 1)
    assert (aupro(inverted), pixel_auroc(inverted)) == (0, 0)
    constant = curves_of(CASES["constant maps"])
    # One straight line from (0, 0) to (1, 1): under it up to 0.3 lies 0.3²/2, of 0.3.
    assert aupro(constant) == pytest.approx(0.15, abs=ROUNDING)
    assert len(corners_of(constant).thresholds) == 1


def test_a_large_region_counts_no_more_than_a_small_one() -> None:
    mask = mask_of(*[(r, c) for r in range(3) for c in range(6)], (5, 5))
    maps = np.where(mask, 1.0, 0.0)[None].astype(np.float32)
    maps[0, 5, 5] = -1  # the small one is the last of all pixels to be found
    curves = curves_of((maps, [mask]))
    np.testing.assert_allclose(corners_of(curves).region_overlap, [0.5, 0.5, 1.0], rtol=0, atol=ROUNDING)
    assert aupro(curves) == pytest.approx(0.5, abs=ROUNDING)


def judged_of(case: Case, masks: Sequence[np.ndarray | None] | None = None) -> JudgedSet:
    maps, truth = case
    images = [LabelledImage(Path(f"{i}.png"), "cut" if mask.any() else GOOD, None) for i, mask in enumerate(truth)]
    return JudgedSet(images, maps, maps.max(axis=(1, 2)), truth if masks is None else masks)


def test_an_evaluation_holds_all_figures() -> None:
    case = random_case(3)
    result, curves = evaluate_judged(judged_of(case)), curves_of(case)
    scores, anomalous = case[0].max(axis=(1, 2)), [mask.any() for mask in case[1]]
    assert (result.images, result.anomalous) == (4, 3)
    assert result.image_auroc == roc_auc_score(anomalous, scores)
    assert (result.pixel_auroc, result.aupro) == (pixel_auroc(curves), aupro(curves))
    assert result.aupro_5 == aupro(curves, 0.05)
    assert (result.pixel_f1, result.pixel_f1_threshold) == best_pixel_f1(curves)
    called = scores > result.image_f1_threshold
    assert result.image_f1 == 2 * (called & anomalous).sum() / (called.sum() + 3)


def test_the_image_score_is_the_detectors_not_the_maps_maximum() -> None:
    judged = judged_of(random_case(3))
    scores = np.array([4, 1, 2, 3], np.float32)  # the good image first
    assert evaluate_judged(replace(judged, scores=scores)).image_auroc == 0


def test_with_a_mask_missing_there_is_no_figure_by_pixel() -> None:
    maps, masks = random_case(5)
    whole, partly = judged_of((maps, masks)), judged_of((maps, masks), [masks[0], masks[1], masks[2], None])
    assert evaluate_judged(whole).pixel_auroc is not None
    result = evaluate_judged(partly)
    assert (result.images, result.anomalous) == (4, 3)
    assert (result.pixel_auroc, result.aupro, result.pixel_f1) == (None, None, None)
    assert result.image_auroc == evaluate_judged(whole).image_auroc


def test_without_an_anomalous_pixel_there_are_image_figures_alone() -> None:
    judged = judged_of(random_case(5))
    for masks in ([None] * 4, [np.zeros((12, 14), bool)] * 4, [judged.masks[0], None, None, None]):
        result = evaluate_judged(replace(judged, masks=masks))
        assert (result.pixel_auroc, result.aupro, result.pixel_f1, result.pixel_f1_threshold) == (None,) * 4
        assert 0 <= result.image_auroc <= 1
    assert pixel_curves(judged.maps, [np.ones((12, 14), bool)] * 4) is None  # no normal pixel either


def test_one_class_alone_is_refused() -> None:
    maps, masks = random_case(5)
    for chosen, found in ((slice(0, 1), "only good ones"), (slice(1, 4), "only anomalous ones")):
        with pytest.raises(UserError, match=f"needs good and anomalous examples; found {found}"):
            evaluate_judged(judged_of((maps[chosen], masks[chosen])))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_scores_that_are_no_numbers_are_refused(value: float) -> None:
    maps, masks = random_case(5)
    maps[2, 3, 4] = value
    with pytest.raises(UserError, match="every score of an anomaly map must be finite; found NaN or infinity"):
        pixel_curves(maps, masks)
    with pytest.raises(UserError, match="every image score must be finite"):
        evaluate_judged(judged_of((maps, masks)))


def test_auroc_counts_pairs_and_half_of_ties() -> None:
    rng = np.random.default_rng(2)
    scores, labels = rng.integers(0, 8, 60), rng.random(60) < 0.3
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[labels] for b in scores[~labels]]
    assert auroc(scores, labels) == pytest.approx(np.mean(pairs), abs=ROUNDING)
    for one_class, found in ((np.ones(3), "only anomalous"), (np.zeros(3), "only good"), ([], "none")):
        with pytest.raises(UserError, match=found):
            auroc(np.zeros(len(one_class)), one_class)
