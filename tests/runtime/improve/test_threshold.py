"""A threshold that makes fewer mistakes, from what is known of parts; or why there is none."""

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from runtime.improve.evidence import Evidence
from runtime.improve.marked import Marked
from runtime.improve.threshold import Chosen, KnownScores, choose

NOTHING = KnownScores(np.zeros(0), np.zeros(0))


def _evidence(good: list[float], bad: list[float], now: float = 1.0) -> Evidence:
    """Evidence in which every mistake is marked."""
    wrong = [(score, True) for score in good if score > now] + [(score, False) for score in bad if score <= now]
    marks = [
        Marked(number, false, score, now, "camera:0", f"{number}.png", "", float(number), None)
        for number, (score, false) in enumerate(wrong)
    ]
    arrays = (np.array(scores, np.float64) for scores in (good, bad))
    return Evidence(Path("i.db"), "", now, "", "", *arrays, frozenset(), tuple(marks), Counter())


def _mistakes(good: list[float], bad: list[float], threshold: float) -> tuple[int, int]:
    return sum(score > threshold for score in good), sum(score <= threshold for score in bad)


def test_it_lies_between_the_false_alarms_and_the_real_ones():
    good, bad = [0.2] * 50 + [1.05, 1.1, 1.15, 1.2, 1.25, 1.3], [1.6, 1.7, 1.8, 1.9, 2.0]
    chosen = choose(_evidence(good, bad), NOTHING)
    assert isinstance(chosen, Chosen) and chosen.value == pytest.approx(1.45) and chosen.marks == 6
    [row] = chosen.rows
    assert (row.now.false_alarms.count, row.then.false_alarms.count, row.then.false_alarms.of) == (6, 0, 56)
    assert (row.now.misses.count, row.then.misses.count, row.then.misses.of) == (0, 0, 5)
    assert row.then.misses.interval[1] == pytest.approx(1 - 0.025 ** (1 / 5))  # so few alarms leave much open


def test_it_falls_to_find_what_was_missed():
    good, bad = [0.2] * 50, [0.7, 0.75, 0.8, 0.85, 0.9, 1.4]
    chosen = choose(_evidence(good, bad), NOTHING)
    assert isinstance(chosen, Chosen) and chosen.value == pytest.approx(0.45)
    assert chosen.rows[0].then.misses.count == 0


@pytest.mark.parametrize("seed", range(12))
def test_it_has_the_fewest_mistakes_of_all_that_have_none_more_than_now(seed: int):
    rng = np.random.default_rng(seed)
    good = rng.normal(0.8, 0.2, 200).round(2).tolist()
    bad = rng.normal(1.4, 0.25, 40).round(2).tolist()
    chosen = choose(_evidence(good, bad), NOTHING)
    now = _mistakes(good, bad, 1.0)
    allowed = [m for t in np.arange(0, 3, 0.005) if all(np.less_equal(m := _mistakes(good, bad, float(t)), now))]
    fewest = min(map(sum, allowed))
    if isinstance(chosen, Chosen):
        found = _mistakes(good, bad, chosen.value)
        assert sum(found) == fewest and found[0] <= now[0] and found[1] <= now[1]
    else:
        assert sum(now) - fewest < 5, chosen


@pytest.mark.parametrize(
    ("good", "bad", "said"),
    [
        ([0.2] * 50 + [1.1] * 4, [1.5] * 9, "needs at least 5 marks at the threshold in force; found 4"),
        ([0.2] * 50 + [1.1] * 6, [1.5] * 4, "needs at least 5 real alarms above it, or known defects.*found 4"),
        ([0.2] * 50 + [1.4] * 6, [1.1] * 9, "no other has fewer false alarms without a miss more"),
        ([0.2] * 50 + [1.1] * 3 + [1.8] * 4, [1.5] * 9, "sets 3 marked parts right; it needs at least 5"),
        ([0.95] * 50, [0.9] * 6, "no other has fewer"),
    ],
)
def test_too_little_is_said_and_nothing_chosen(good: list[float], bad: list[float], said: str):
    found = choose(_evidence(good, bad), NOTHING)
    assert isinstance(found, str)
    assert re.search(said, found), found


def test_known_defects_bound_it_too_and_have_a_row_of_their_own():
    evidence = _evidence([0.2] * 50 + [1.1] * 6, [])
    known = KnownScores(np.array([0.3]), np.array([1.2, 1.3, 1.4, 1.5, 1.6]))
    chosen = choose(evidence, known)
    assert isinstance(chosen, Chosen) and chosen.value == pytest.approx(1.15)
    assert [row.on for row in chosen.rows] == ["judgements in the log", "known parts (--data)"]
    assert chosen.rows[0].then.misses.text() == "none known" and chosen.rows[1].then.misses.count == 0
