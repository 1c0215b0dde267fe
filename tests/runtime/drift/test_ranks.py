"""The sequential test: false alarms are as rare as is stated, a change is found, and it goes on after a restart."""

import json

import numpy as np
import pytest

from runtime.drift.ranks import FEWEST, RankCusum


def _fed(test: RankCusum, values: list[float], start: int = 0) -> RankCusum:
    for at, value in enumerate(values, start):
        test.add(value, 0.5, float(at))
    return test


def test_false_alarms_come_no_oftener_than_stated_whatever_the_distribution():
    random, limit, lengths = np.random.default_rng(11), 100.0, []
    for run in range(200):
        test = RankCusum(limit)
        draw = random.standard_cauchy if run % 2 else random.standard_exponential
        added = (test.add(float(draw()), float(random.random()), 0.0) for _ in range(10**6))
        lengths.append(next(n for n, alarm in enumerate(added, 1) if alarm) - FEWEST)
    assert np.mean(lengths) - 3 * np.std(lengths) / np.sqrt(len(lengths)) > limit


def test_an_alarm_ends_when_the_light_is_back():
    random, test = np.random.default_rng(5), RankCusum(1000.0)
    _fed(test, list(random.normal(100, 1, 200)))
    _fed(test, list(random.normal(90, 1, 100)), 200)
    assert test.alarm and test.since is not None and 195 <= test.since <= 205
    _fed(test, list(random.normal(100, 1, 100)), 300)
    assert not test.alarm and test.since is None


def test_what_came_after_the_change_is_not_what_values_come_back_to():
    random, test = np.random.default_rng(5), RankCusum(1000.0)
    _fed(test, list(random.normal(100, 1, 60)))  # so few that those after the change would be a tenth of all
    _fed(test, list(random.normal(80, 1, 200)), 60)
    assert test.alarm and test.reference[0] > 95


def test_a_change_that_is_too_small_to_matter_is_none():
    random = np.random.default_rng(5)
    values = [*random.normal(100, 0.01, 200), *random.normal(100.5, 0.01, 200)]
    assert _fed(RankCusum(1000.0, least=0.3), values).alarm
    assert not _fed(RankCusum(1000.0, least=0.8), values).alarm


@pytest.mark.parametrize("at", [30, 100, 203, 230])  # while it learns, bets, has begun to find it, has found it
def test_it_goes_on_where_it_was(at: int):
    random = np.random.default_rng(5)
    values = [*random.normal(100, 1, 200), *random.normal(90, 1, 100)]
    whole, before, after = RankCusum(1000.0), RankCusum(1000.0), RankCusum(1000.0)
    _fed(whole, values)
    _fed(before, values[:at])
    after.restore(json.loads(json.dumps(before.to_json())))
    _fed(after, values[at:], at)
    assert after.to_json() == whole.to_json() and after.alarm


@pytest.mark.parametrize(
    "damage", [{"known": "AAAA!"}, {"logs": [1.0]}, {"alarm": True}, {"since": "x"}, {"latest": [[1.0, 5.0]]}]
)
def test_what_was_damaged_is_refused_and_nothing_is_changed(damage: dict):
    test = _fed(RankCusum(1000.0), [1.0, 2.0, 3.0])
    before = test.to_json()
    with pytest.raises((KeyError, TypeError, ValueError)):
        test.restore({**before, **damage})
    assert test.to_json() == before
