"""Thresholds and areas against simulation, brute force and pair counting."""

import numpy as np
import pytest

from runtime.errors import UserError
from train.metrics import auroc, evaluate_maps
from train.threshold import best_f1, from_good_images


@pytest.mark.parametrize(("count", "rate"), [(24, 0.05), (99, 0.01), (200, 0.1)])
def test_a_new_good_image_exceeds_the_threshold_with_at_most_the_rate(count: int, rate: float) -> None:
    rng = np.random.default_rng(0)
    trials = 4000
    alarms = sum(rng.gumbel() > from_good_images(rng.gumbel(size=count).tolist(), rate).value for _ in range(trials))
    allowed = max(rate, 1 / (count + 1))
    # three standard deviations of a binomial share over the trials
    assert alarms / trials <= allowed + 3 * np.sqrt(allowed * (1 - allowed) / trials)


def test_too_few_images_say_what_they_promise() -> None:
    threshold = from_good_images([0.3, 0.9, 0.5], 0.01)
    assert threshold.value == 0.9
    assert "25.00%" in threshold.method
    assert "needs 99" in threshold.method
    with pytest.raises(UserError, match="between 0 and 1"):
        from_good_images([0.1], 0)


def test_best_f1_is_that_of_every_cut_ties_included() -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        scores, labels = rng.integers(0, 6, 30).astype(float), rng.random(30) < 0.4
        labels[:2] = [True, False]

        def f1(cut: float, scores: np.ndarray = scores, labels: np.ndarray = labels) -> float:
            called = scores > cut
            return 2 * (called & labels).sum() / (called.sum() + labels.sum())

        threshold = best_f1(scores, labels)
        assert f1(threshold.value) == pytest.approx(max(f1(cut) for cut in np.arange(-1, 7) + 0.5))
    with pytest.raises(UserError, match="good and anomalous"):
        best_f1([1.0, 2.0], [True, True])


def test_auroc_counts_pairs_and_half_of_ties() -> None:
    rng = np.random.default_rng(2)
    scores, labels = rng.integers(0, 8, 60), rng.random(60) < 0.3
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[labels] for b in scores[~labels]]
    assert auroc(scores, labels) == pytest.approx(np.mean(pairs), abs=1e-12)
    for one_class, found in ((np.ones(3), "only anomalous"), (np.zeros(3), "only good")):
        with pytest.raises(UserError, match=found):
            auroc([1, 2, 3], one_class)


def test_an_image_without_a_mask_counts_for_images_only() -> None:
    maps = np.zeros((3, 2, 2), np.float32)
    maps[1, 0, 0], maps[2] = 1, 2
    mask = np.zeros((2, 2), bool)
    mask[0, 0] = True
    result = evaluate_maps(maps, [False, True, True], [np.zeros((2, 2), bool), mask, None])
    assert (result.images, result.anomalous, result.image_auroc, result.pixel_auroc) == (3, 2, 1.0, 1.0)
    assert evaluate_maps(maps, [False, True, True], [np.zeros((2, 2), bool), None, None]).pixel_auroc is None


def test_the_rank_is_that_of_exact_arithmetic() -> None:
    # n = 99: the ⌈100·(1 - r)⌉-th of 1..99 is 100 - 100·r, and exactly r of 100 exceed it, for every whole percent.
    scores = list(range(1, 100))
    for percent in range(1, 100):
        threshold = from_good_images(scores, percent / 100)
        assert threshold.value == 100 - percent
        assert threshold.method.startswith(f"false-alarm rate <= {percent}.00% from 99")
        assert "needs" not in threshold.method  # 99 images are enough for every one of these rates
    with pytest.raises(UserError, match="scores of good images"):
        from_good_images([], 0.01)


def test_best_f1_parts_neighbouring_floats() -> None:
    below, above = np.nextafter(1.0, 0), 1.0  # their mean rounds to one of them
    assert below <= best_f1([below, above], [False, True]).value < above
    assert best_f1([0.5, 0.5], [False, True]).value < 0.5  # everything anomalous is the best that can be had


def test_maps_without_any_mask_have_no_pixel_figure() -> None:
    result = evaluate_maps(np.arange(8, dtype=np.float32).reshape(2, 2, 2), [False, True], [None, None])
    assert (result.image_auroc, result.pixel_auroc) == (1.0, None)
