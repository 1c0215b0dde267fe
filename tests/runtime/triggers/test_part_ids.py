"""Ids for a camera that its own line triggers: each is one frame's at most, and no frame gets one given after it."""

import random
import time

import pytest

from runtime.triggers.counts import TriggerCounts
from runtime.triggers.options import TriggerOptions
from runtime.triggers.orders import FULL, NO_SOURCE, STOPPED, TWICE, Orders
from runtime.triggers.part_ids import MOST, PartIds
from runtime.triggers.trigger import Trigger

LONG_S = 1e9  # beyond every clock: times of these tests are small numbers
NAMED = TriggerOptions(deadline_s=LONG_S, queue=100, each_frame=True, named=True)


@pytest.fixture
def opened():
    """Return a function that opens orders, with a list of what they had to answer without a verdict."""
    everything = []

    def open_orders(options=NAMED, *names):
        orders, answered = Orders(options), []
        everything.append(orders)
        kinds = dict.fromkeys(names or ("cam",), "free")
        orders.open(kinds, lambda order, reason: answered.append((order.trigger.part, reason)))
        return orders, answered

    yield open_orders
    for orders in everything:
        orders.close()


def given(part, asked_s, source=""):
    return Trigger(part, asked_s, "modbus", source)


def part_of(order):
    return None if order is None else order.trigger.part


def test_a_frame_takes_the_id_that_was_given_before_it_and_none_takes_it_again(opened, capsys):
    orders, _ = opened()
    assert orders.take(given("SN1", 1.0)) == ""
    assert part_of(orders.claim("cam", 0.5, 0)) == "1"  # read before the id was given
    order = orders.claim("cam", 2.0, 1)
    assert order.trigger == Trigger("SN1", 2.0, "camera", "cam", given("SN1", 1.0)) and order.due_s == 2.0 + LONG_S
    assert part_of(orders.claim("cam", 3.0, 2)) == "2"
    assert (orders.counts().unnamed, orders.counts().unused) == (2, 0)
    assert capsys.readouterr().err == "cam: no part's id was given for a frame, which is counted as 1 (1 so far)\n"


def test_of_two_ids_before_one_frame_the_newer_counts(opened):
    orders, _ = opened()
    for number in (1, 2, 3):
        orders.take(given(f"SN{number}", float(number)))
    assert part_of(orders.claim("cam", 2.5, 0)) == "SN2"
    assert part_of(orders.claim("cam", 4.0, 1)) == "SN3"
    assert orders.counts().unused == 1 and "1 ids unused" in orders.counts().text()


def test_an_id_given_while_a_frame_is_on_its_way_is_the_next_ones(opened):
    orders, _ = opened(TriggerOptions(deadline_s=LONG_S, delay_s=0.5, each_frame=True, named=True))
    orders.take(given("SN1", 1.0))
    orders.take(given("SN2", 1.8))
    assert [part_of(orders.claim("cam", read_s, 0)) for read_s in (2.0, 3.0)] == ["SN1", "SN2"]


def test_each_source_takes_the_id_once_unless_one_is_named(opened):
    orders, _ = opened(NAMED, "left", "right")
    orders.take(given("both", 1.0))
    assert {part_of(orders.claim(name, 2.0, 0)) for name in ("left", "right")} == {"both"}
    orders.take(given("one", 3.0, "right"))
    assert [part_of(orders.claim(name, 4.0, 1)) for name in ("left", "right")] == ["1", "one"]
    assert orders.take(given("none", 5.0, "middle")) == NO_SOURCE


def test_an_id_takes_no_place_in_the_queue_but_is_refused_while_its_part_is_judged(opened):
    orders, _ = opened(TriggerOptions(deadline_s=LONG_S, queue=1, each_frame=True, named=True))
    assert orders.take(given("SN1", 1.0)) == ""
    order = orders.claim("cam", 2.0, 0)
    assert orders.take(given("SN2", 3.0)) == "" and orders.take(given("SN1", 3.0)) == TWICE
    orders.finish(order)
    assert orders.take(given("SN1", 4.0)) == ""


def test_a_part_whose_frame_is_refused_is_answered_and_its_id_is_not_the_next_frames(opened):
    orders, answered = opened(TriggerOptions(deadline_s=LONG_S, queue=1, each_frame=True, named=True))
    orders.take(given("SN1", 1.0))
    orders.claim("cam", 2.0, 0)
    orders.take(given("SN2", 3.0))
    assert orders.claim("cam", 4.0, 1) is None
    assert answered == [("SN2", f"refused: {FULL}")]
    assert orders.claim("cam", 5.0, 2) is None and len(answered) == 1
    assert orders.counts().refused == 2 and orders.counts().unused == 0


def test_at_the_end_what_waits_is_unused(opened):
    orders, answered = opened()
    orders.take(given("SN1", 1.0))
    orders.close()
    assert orders.counts() == TriggerCounts(unused=1) and answered == []
    assert orders.take(given("SN2", 2.0)) == STOPPED


def test_without_ids_to_come_a_counted_part_is_no_news(opened, capsys):
    orders, _ = opened(TriggerOptions(deadline_s=LONG_S, each_frame=True))
    assert part_of(orders.claim("cam", time.monotonic(), 0)) == "1"
    assert capsys.readouterr().err == "" and orders.counts().unnamed == 0


def test_ids_that_nothing_takes_do_not_fill_the_memory():
    ids = PartIds(0.0)
    for number in range(MOST + 5):
        ids.give(given(f"SN{number}", float(number)))
    assert (len(ids), ids.unused) == (MOST, 5)


@pytest.mark.parametrize("seed", range(20))
def test_whatever_the_order_of_ids_and_frames_every_id_is_one_frames_or_unused(seed):
    chance = random.Random(seed)
    moments = [float(place) for place in range(400)]
    frames = {moment for moment in moments if chance.random() < 0.5}
    delay_s = chance.choice((0.0, 0.5, 2.5, 10.5))
    ids, taken = PartIds(delay_s), {}
    for moment in moments:
        if moment in frames:
            found = ids.take(moment)
            taken[moment] = None if found is None else found.asked_s
        else:
            ids.give(given("SN", moment))
    before = -1.0
    for moment in sorted(frames):  # the newest of those given since the last frame's, early enough for this one
        early = [other for other in moments if other not in frames and before - delay_s <= other < moment - delay_s]
        assert taken[moment] == (max(early) if early else None)
        before = moment
    used = [asked_s for asked_s in taken.values() if asked_s is not None]
    assert len(used) == len(set(used)) and len(used) + ids.unused + len(ids) == len(moments) - len(frames)
