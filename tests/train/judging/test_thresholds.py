"""Thresholds of the image score against simulation and brute force."""

import numpy as np
import pytest

from runtime.common.errors import UserError
from train.judging.false_alarms import CONFIDENCE, best_f1, from_good_images


@pytest.mark.parametrize(("count", "rate"), [(24, 0.05), (99, 0.01), (200, 0.1)])
def test_a_new_good_image_exceeds_the_threshold_with_at_most_the_rate(count: int, rate: float) -> None:
    rng = np.random.default_rng(0)
    trials = 1000
    alarms = sum(rng.gumbel() > from_good_images(rng.gumbel(size=count).tolist(), rate).value for _ in range(trials))
    allowed = max(rate, 1 / (count + 1))
    # three standard deviations of a binomial share over the trials
    assert alarms / trials <= allowed + 3 * np.sqrt(allowed * (1 - allowed) / trials)


@pytest.mark.parametrize(("count", "rate"), [(24, 0.05), (60, 0.2), (10, 0.001)])
def test_the_interval_holds_the_true_rate_as_often_as_it_says(count: int, rate: float) -> None:
    rng = np.random.default_rng(1)
    trials = 2000
    held, rates = 0, []
    for _ in range(trials):
        threshold = from_good_images(rng.exponential(size=count).tolist(), rate)
        true_rate = np.exp(-threshold.value)  # what an exponential score exceeds it with
        assert threshold.interval is not None
        held += threshold.interval[0] <= true_rate <= threshold.interval[1]
        rates.append(true_rate)
    # three standard deviations of a binomial share over the trials, both ways: neither too narrow nor too wide
    assert held / trials == pytest.approx(CONFIDENCE, abs=3 * np.sqrt(CONFIDENCE * (1 - CONFIDENCE) / trials))
    assert np.mean(rates) == pytest.approx(threshold.false_alarm_rate, abs=3 * np.std(rates) / np.sqrt(trials))


def test_the_interval_of_the_largest_score_is_known_in_closed_form() -> None:
    # Beta(1, n) has the distribution function 1 - (1 - x)^n.
    threshold = from_good_images([0.1, 0.4, 0.3], 0.01)
    low, high = (1 - tail ** (1 / 3) for tail in (0.975, 0.025))
    assert threshold.interval == pytest.approx((low, high), abs=1e-9)  # SciPy finds quantiles by iteration
    assert threshold.false_alarm_rate == 0.25
    assert (
        threshold.method
        == "false-alarm rate <= 25.00% from 3 held-out good images (1.00% needs 99), 95% interval 0.84% to 71%"
    )


def test_the_maps_threshold_has_the_rank_of_the_images() -> None:
    scores, peaks = [0.1, 0.4, 0.2, 0.3], [1.4, 1.1, 1.3, 1.2]
    threshold = from_good_images(scores, 0.5, peaks)  # rank ceil(5 / 2) of 4
    assert (threshold.value, threshold.map_value, threshold.for_map) == (0.3, 1.3, 1.3)
    assert from_good_images(scores, 0.5).for_map == 0.3


def test_too_few_images_say_what_they_promise() -> None:
    threshold = from_good_images([0.3, 0.9, 0.5], 0.01)
    assert threshold.value == 0.9
    assert "25.00%" in threshold.method
    assert "needs 99" in threshold.method


@pytest.mark.parametrize("rate", [0, 1, -0.1, float("nan")])
def test_a_rate_that_is_none_is_refused(rate: float) -> None:
    with pytest.raises(UserError, match="between 0 and 1"):
        from_good_images([0.1], rate)


def test_scores_that_choose_nothing_are_refused() -> None:
    with pytest.raises(UserError, match="scores of good images; found none"):
        from_good_images([], 0.01)
    with pytest.raises(UserError, match="must be finite"):
        from_good_images([0.1, float("nan")], 0.01)


def test_the_rank_is_that_of_exact_arithmetic() -> None:
    # n = 99: the ⌈100·(1 - r)⌉-th of 1..99 is 100 - 100·r, and exactly r of 100 exceed it, for every whole percent.
    scores = list(range(1, 100))
    for percent in range(1, 100):
        threshold = from_good_images(scores, percent / 100)
        assert threshold.value == 100 - percent
        assert threshold.method.startswith(f"false-alarm rate <= {percent}.00% from 99")
        assert "needs" not in threshold.method  # 99 images are enough for every one of these rates


def test_best_f1_is_that_of_every_cut_ties_included() -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        scores, labels = rng.integers(0, 6, 30).astype(float), rng.random(30) < 0.4
        labels[:2] = [True, False]

        def f1(cut: float, scores: np.ndarray = scores, labels: np.ndarray = labels) -> float:
            called = scores > cut
            return 2 * (called & labels).sum() / (called.sum() + labels.sum())

        threshold = best_f1(scores, labels)
        best = max(f1(cut) for cut in np.arange(-1, 7) + 0.5)
        assert f1(threshold.value) == pytest.approx(best)
        assert threshold.method == f"best F1 {best:.4f} on 30 labelled images"
        assert (threshold.false_alarm_rate, threshold.interval) == (None, None)
    with pytest.raises(UserError, match="good and anomalous"):
        best_f1([1.0, 2.0], [True, True])


def test_best_f1_lies_halfway_to_the_next_lower_score() -> None:
    assert best_f1([1, 2, 4, 8], [False, False, True, True]).value == 3


def test_best_f1_parts_neighbouring_floats() -> None:
    below, above = np.nextafter(1.0, 0), 1.0  # their mean rounds to one of them
    assert below <= best_f1([below, above], [False, True]).value < above
    assert best_f1([0.5, 0.5], [False, True]).value < 0.5  # everything anomalous is the best that can be had
