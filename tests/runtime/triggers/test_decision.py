"""N of the last M frames decide; frames without a verdict count for neither side."""

import pytest

from runtime.common.errors import UserError
from runtime.triggers.decision import Decider, Deciders
from runtime.triggers.options import DecideOptions

WORDS = {"g": "good", "a": "anomalous", "n": "none"}


def decided(text, verdicts, debounce=1):
    decider = Decider(DecideOptions.parse(text, debounce))
    return "".join(decider.add(WORDS[letter])[0] for letter in verdicts)


@pytest.mark.parametrize(
    ("text", "verdicts", "decisions"),
    [
        ("1of1", "gagn", "gagn"),
        ("3of5", "ggg", "nng"),  # the third good one: two that are missing cannot make three
        ("3of5", "aaggg", "nnnng"),
        ("3of5", "gaggagagaaaa", "nnngggggaaaa"),
        ("3of5", "gggggnnn", "nngggggn"),  # three of five say nothing: two good ones are too few
        ("3of5", "annaa", "nnnna"),
        ("3of3", "aaagaaa", "nnaggga"),
    ],
)
def test_a_window_decides(text, verdicts, decisions):
    assert decided(text, verdicts) == decisions


def test_a_debounced_decision_waits_for_its_frames_and_none_does_not():
    assert decided("1of1", "ggagaag", debounce=2) == "nggggaa"
    assert decided("1of1", "ggaan", debounce=2) == "nggan"


def test_each_source_has_its_window_which_begins_anew_with_another_state():
    deciders = Deciders(DecideOptions.parse("2of3"))
    assert [deciders.add("left", "anomalous", 0, 1.0) for _ in range(2)] == ["none", "anomalous"]
    assert deciders.add("right", "anomalous", 0, 1.0) == "none"
    assert deciders.add("left", "anomalous", 1, 1.0) == "none"  # it was lost, and came back
    assert deciders.add("left", "anomalous", 1, 1.0) == "anomalous"
    assert deciders.add("left", "anomalous", 1, 1.1) == "none"  # another threshold


@pytest.mark.parametrize("text", ["", "3", "3of", "of5", "6of5", "0of5", "-1of5", "3of1001", "3 of 5", "²of5"])
def test_another_form_is_refused(text):
    with pytest.raises(UserError, match="NofM"):
        DecideOptions.parse(text)
