"""Percentiles, ratios and noise against NumPy and against what they are for."""

import math

import numpy as np
import pytest

from runtime.report.schema import Timing
from runtime.report.statistics import BLOCKS, noise, round_medians, round_ratios, speed_ratio


def _rounds(values) -> list[tuple[float, ...]]:
    return [(float(value),) for value in values]


def test_percentiles_are_those_of_all_rounds() -> None:
    values = np.random.default_rng(0).gamma(2.0, 3.0, 101)
    # 101 values: the p-th percentile is the p-th of the sorted ones, with nothing to interpolate.
    ordered = np.sort(values)
    expected = {"p50": ordered[50], "p95": ordered[95], "p99": ordered[99]}
    assert Timing((tuple(values[:40]), (), tuple(values[40:]))).percentiles == pytest.approx(expected)
    assert Timing(((7.0,),)).percentiles == {"p50": 7.0, "p95": 7.0, "p99": 7.0}


def test_the_ratio_cancels_what_a_whole_round_suffers() -> None:
    weather = np.random.default_rng(1).uniform(1, 10, 51)  # what slows a whole round
    assert speed_ratio(_rounds(12 * weather), _rounds(8 * weather)) == pytest.approx(1.5)
    assert speed_ratio(_rounds([1, 2, 9]), _rounds([2, 2, 3])) == 1.0  # the median of 0.5, 1 and 3


def test_only_rounds_that_both_ran_in_count() -> None:
    first = [(10.0, 12.0, 50.0), (), (30.0,), (40.0,)]
    other = [(6.0,), (7.0,), (), (10.0,)]
    assert round_medians(first)[0] == 12.0 and math.isnan(round_medians(first)[1])
    assert speed_ratio(first, other) == pytest.approx(3.0)  # 12/6 and 40/10
    assert speed_ratio([(1.0,), ()], [(), (1.0,)]) is None
    assert round_ratios(first, other) == [(2.0,), (), (), (4.0,)]


def test_noise_is_the_spread_of_the_parts_not_of_the_runs() -> None:
    rng = np.random.default_rng(2)
    steady = [tuple(rng.normal(100, 10, 5)) for _ in range(50)]
    drifting = [tuple(value * (1 + 0.01 * number) for value in samples) for number, samples in enumerate(steady)]
    assert noise(steady) < 0.03  # runs scatter by 10 %, medians of 10 rounds by much less
    # a rise of half its value, linear: block medians lie at 1.045, 1.145, ... 1.445, deviation 0.158, median 1.245
    assert noise(drifting) == pytest.approx(0.158 / 1.245, rel=0.2)
    assert noise([]) is noise([(1.0, 2.0)]) is None
    assert noise(_rounds(range(1, BLOCKS + 1))) == pytest.approx(np.std(range(1, BLOCKS + 1), ddof=1) / 3)
    assert noise([(), (5.0,), (), (5.0,)]) == 0.0
