"""Intervals and tests of a few marks."""

import math

import pytest

from runtime.improve.shares import FEWEST, LUCK, Share, by_chance, by_luck


def _tail(at_least: int, of: int, share: float) -> float:
    """P(X >= at_least) of a binomial distribution, summed naively."""
    return sum(math.comb(of, k) * share**k * (1 - share) ** (of - k) for k in range(at_least, of + 1))


@pytest.mark.parametrize(("count", "of"), [(0, 20), (3, 20), (20, 20), (1, 500)])
def test_an_interval_is_clopper_and_pearsons(count: int, of: int):
    low, high = Share(count, of).interval
    # its bounds are the shares at which so many, or more, and so many, or fewer, have a probability of 2.5 %
    assert low == 0 if count == 0 else _tail(count, of, low) == pytest.approx(0.025, rel=1e-6)
    assert high == 1 if count == of else 1 - _tail(count + 1, of, high) == pytest.approx(0.025, rel=1e-6)


def test_of_nothing_nothing_is_known():
    assert Share(0, 0).interval == (0.0, 1.0) and Share(0, 0).text() == "none known"
    assert Share(0, 20).text() == "0 of 20 (0 to 16.8 %)"


def test_so_few_marks_are_the_fewest_that_are_no_luck():
    assert by_luck(FEWEST, 0) <= LUCK < by_luck(FEWEST - 1, 0)
    assert by_luck(0, 0) == 1 and by_luck(8, 2) == pytest.approx(_tail(8, 10, 0.5))
    assert by_chance(4, 12, 0.1) == pytest.approx(_tail(4, 12, 0.1))
