"""A trigger's handshake: rises, is taken or refused, answered, acknowledged."""

import time
from dataclasses import replace

import pytest

from runtime.controller.answer import Answer
from runtime.controller.asking import NOT_STARTED, Asking, Handshake
from runtime.triggers.trigger import LONGEST_PART, Trigger


def _asking(taken: list[Trigger], refusal: str = "", sources: tuple[str, ...] = ("a",)) -> Asking:
    asking = Asking("modbus", sources)

    def take(trigger: Trigger) -> str:
        if not refusal:
            taken.append(trigger)
        return refusal

    asking.start(take)
    return asking


def test_one_edge_is_one_trigger_and_one_answer():
    taken: list[Trigger] = []
    asking = _asking(taken)
    for _ in range(3):
        asking.write(True, " SN1 ")
    [trigger] = taken
    assert (trigger.part, trigger.origin) == ("SN1", "modbus") and trigger.asked_s <= time.monotonic()
    assert asking.handshake == Handshake(busy=True)
    asking.answered("a", Answer(trigger=Trigger("SN0", 1.0, "modbus")))
    asking.answered("a", Answer(trigger=None))
    assert asking.handshake.busy  # others' answers
    asking.answered("a", Answer(trigger=trigger))
    assert asking.handshake == Handshake(done=True)
    asking.write(False, "")
    assert asking.handshake == Handshake()
    asking.write(True, "SN2")
    assert [one.part for one in taken] == ["SN1", "SN2"] and asking.handshake == Handshake(busy=True)


def test_it_is_done_when_every_source_has_answered():
    taken: list[Trigger] = []
    asking = _asking(taken, sources=("a", "b"))
    asking.write(True, "SN1")
    for source in ("a", "a"):
        asking.answered(source, Answer(trigger=taken[0]))
        assert asking.handshake.busy
    asking.answered("b", Answer(trigger=taken[0]))
    assert asking.handshake == Handshake(done=True)


def test_a_part_that_was_counted_is_known_again():
    taken: list[Trigger] = []
    asking = _asking(taken)
    asking.write(True, "")
    assert taken[0].part == ""
    asking.answered("a", Answer(trigger=replace(taken[0], part="17")))
    assert asking.handshake.done


@pytest.mark.parametrize("part", ["x" * (LONGEST_PART + 1), "a\nb", "a\x00b"])
def test_what_is_no_part_is_refused(part: str):
    taken: list[Trigger] = []
    asking = _asking(taken)
    asking.write(True, part)
    assert not taken and asking.handshake.refused and "printable" in asking.handshake.reason


def test_a_refusal_says_why_and_leaves_what_is_under_way():
    asking = _asking([], "too many wait")
    assert asking.ask("SN1") == "too many wait"
    assert asking.handshake == Handshake(refused=True, reason="too many wait")
    taken: list[Trigger] = []
    asking = _asking(taken)
    asking.ask("SN1")
    asking.start(lambda trigger: "too many wait")
    asking.ask("SN2")
    assert asking.handshake == Handshake(busy=True, refused=True, reason="too many wait")
    asking.answered("a", Answer(trigger=taken[0]))
    assert asking.handshake == Handshake(done=True)


def test_nothing_is_taken_before_the_start_and_after_the_end():
    asking = Asking("opcua", ["a"])
    assert asking.ask("SN1") == NOT_STARTED and not asking.started
    asking.start(lambda trigger: "")
    assert asking.ask("SN1") == "" and asking.started
    asking.close()
    assert asking.ask("SN2") == NOT_STARTED


def test_a_trigger_that_is_taken_back_stays_busy_until_its_answer():
    taken: list[Trigger] = []
    asking = _asking(taken)
    asking.write(True, "SN1")
    asking.write(False, "")
    assert asking.handshake == Handshake(busy=True)
    asking.answered("a", Answer(trigger=taken[0]))
    assert asking.handshake.done
