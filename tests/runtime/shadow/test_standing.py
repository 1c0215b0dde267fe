"""When a candidate may judge: the statistics against SciPy's, and each reason against it."""

from collections import Counter
from pathlib import Path

import pytest
from scipy.stats import binomtest

from runtime.common.binomial import at_least, mcnemar
from runtime.records.marks import FALSE_ALARM, MISSED
from runtime.records.shadow_reading import Marked
from runtime.records.shadows import Comparison, Counts
from runtime.shadow.disagreements import KEPT, SHOWN, Disagreements
from runtime.shadow.standing import LEAST, figures, reasons

FINE = Counts(both_good=LEAST)


@pytest.mark.parametrize("first", [0, 1, 5, 20, 301, 12_345])
@pytest.mark.parametrize("second", [0, 1, 6, 19, 300, 12_000])
def test_the_paired_test_is_scipys(first: int, second: int):
    of = first + second
    if of == 0:
        assert mcnemar(0, 0) == at_least(0, 0) == 1.0
        return
    # sums of thousands of terms differ in their last digits
    assert mcnemar(first, second) == pytest.approx(binomtest(first, of).pvalue, rel=1e-6, abs=1e-300)
    expected = binomtest(first, of, alternative="greater").pvalue
    assert at_least(first, of) == pytest.approx(expected, rel=1e-6, abs=1e-300)


def marked(false_alarms: int = 0, misses: int = 0) -> Marked:
    """Return marks of so many disagreements, each by a number of its own."""
    events = {FALSE_ALARM: frozenset(range(false_alarms)), MISSED: frozenset(range(900, 900 + misses))}
    return Marked(Counter({(FALSE_ALARM, "good"): false_alarms, (MISSED, "anomalous"): misses}), events)


def test_a_candidate_that_nothing_speaks_against_may_judge():
    assert reasons(FINE, Marked.nothing(), "") == []
    halved = FINE.plus(running_only=20, running_events=20)  # all of them were false alarms
    assert reasons(halved, marked(false_alarms=20), "") == []
    found = FINE.plus(candidate_only=6, candidate_events=6)  # all of them were missed parts
    assert reasons(found, marked(misses=6), "") == []


@pytest.mark.parametrize(
    ("counts", "marks", "trouble", "said"),
    [
        (Counts(both_good=LEAST - 1), marked(), "", f"too few frames were compared: expected {LEAST}, found 299"),
        (FINE, marked(), "its process ended", "the candidate fails: its process ended"),
        (FINE.plus(failed=4), marked(), "", "no verdict on 4 of 304 frames"),
        (FINE.plus(candidate_none=4), marked(), "", "no verdict on 4 of 304 frames"),
        (FINE.plus(candidate_only=5, candidate_events=5), marked(), "", "more false alarms: 5 of its own, 0 fewer"),
        (FINE.plus(running_only=9, running_events=1), marked(), "", "calls good what the engine in force calls anomal"),
        (FINE.plus(running_events=21), marked(false_alarms=20), "", "anomalous, 1 times"),
    ],
)
def test_each_reason_against_a_candidate(counts: Counts, marks: Marked, trouble: str, said: str):
    [reason] = reasons(counts, marks, trouble)
    assert said in reason and "\n" not in reason


@pytest.mark.parametrize("counts", [FINE.plus(failed=3), FINE.plus(candidate_only=4, candidate_events=4)])
def test_what_may_be_chance_speaks_against_nobody(counts: Counts):
    assert reasons(counts, Marked.nothing(), "") == []


def test_the_figures_are_those_of_parts_and_not_of_frames():
    shown = figures(FINE.plus(running_only=100, running_events=4, candidate_only=1, candidate_events=1), marked(3))
    assert shown["p_value"] == pytest.approx(binomtest(1, 5).pvalue)
    assert shown["marks"]["false_alarms_gone"] == 3 and shown["misses"] == {"fewer": 0, "more": 1}


OF = Comparison("", "a", "0" * 64, "b", "1" * 64, "[1, 1, 2, 2]")


def test_frames_that_follow_each_other_before_a_camera_are_one_event():
    found = Disagreements(None)
    times = [("a", 0.0), ("a", 0.5), ("b", 0.6), ("a", 1.2), ("a", 2.3), ("b", 0.9)]
    events, so_far = [], 0
    for source, captured_s in times:
        number, new = found.event(source, "good", captured_s, False, so_far)
        so_far += new
        events.append(number)
    assert events == [1, 1, 2, 1, 3, 2]
    assert found.event("a", "anomalous", 2.3, False, 3) == (4, True)  # of the other kind
    assert found.event("a", "good", 2.4, True, 4) == (5, True)  # a part of its own


def test_pictures_are_bounded_in_memory_and_on_the_disk(tmp_path: Path):
    found = Disagreements(tmp_path / "i.db")
    for index in range(KEPT + 10):
        row = {"captured_s": 1.7e9 + index, "source": "camera:0", "frame": index}
        found.keep(row, b"jpeg %d" % index)
    kept = sorted(path.read_bytes() for path in (tmp_path / "i.shadow").iterdir())
    assert kept == sorted(b"jpeg %d" % index for index in range(10, KEPT + 10))
    assert [one.jpeg for one in found.newest()] == [b"jpeg %d" % (KEPT + 9 - back) for back in range(SHOWN)]
