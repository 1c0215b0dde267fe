"""Each trigger is refused at once or gets exactly one answer; a frame belongs to a part only if it came after it."""

import threading
import time

import pytest

from runtime.triggers.options import TriggerOptions
from runtime.triggers.orders import FULL, NO_SOURCE, STOPPED, TWICE, Orders
from runtime.triggers.station import SETTLE_S, Order, Station
from runtime.triggers.trigger import Trigger
from tests.support.waiting import wait_until

LONG = TriggerOptions(deadline_s=60.0, queue=100, skip=0)


@pytest.fixture
def opened():
    """Return a function that opens orders, with a list of what they had to answer without a verdict."""
    everything = []

    def open_orders(options=LONG, **kinds):
        orders, answered = Orders(options), []
        everything.append(orders)
        orders.open(kinds or {"cam": "free"}, lambda order, reason: answered.append((order.trigger.part, reason)))
        return orders, answered

    yield open_orders
    for orders in everything:
        orders.close()


def ask(orders, part="", source="", asked_s=None):
    return orders.take(Trigger(part, time.monotonic() if asked_s is None else asked_s, "http", source))


def part_of(order):
    return None if order is None else order.trigger.part


def test_a_frame_read_before_its_trigger_is_nobodys(opened):
    orders, _ = opened()
    before_s = time.monotonic()
    assert orders.claim("cam", before_s, 0) is None
    assert ask(orders, "a") == ""
    assert orders.claim("cam", before_s, 1) is None
    assert part_of(orders.claim("cam", time.monotonic(), 2)) == "a"
    assert orders.claim("cam", time.monotonic(), 3) is None  # one trigger, one frame


def test_frames_that_may_have_waited_in_the_driver_are_passed_over():
    station = Station("free", delay_s=0.5, skip=2)
    station.waiting.extend(
        Order(Trigger(part, asked_s, "http"), "cam", 99.0) for part, asked_s in (("a", 1.0), ("b", 2.0))
    )
    claimed = [
        (index, station.claim(read_s, index)) for index, read_s in enumerate((1.2, 1.4, 1.6, 2.0, 2.4, 2.6, 3.0, 3.4))
    ]
    # the first that was read late enough for a is 2, for b it is 5
    assert [(index, part_of(order)) for index, order in claimed if order] == [(4, "a"), (7, "b")]


def test_frames_dropped_between_count_as_passed_over():
    station = Station("free", delay_s=0.0, skip=2)
    station.waiting.append(Order(Trigger("a", 1.0, "http"), "cam", 99.0))
    assert station.claim(1.1, 10) is None
    assert part_of(station.claim(1.9, 17)) == "a"


def test_a_file_gives_its_frames_in_the_order_of_the_triggers(opened):
    orders, _ = opened(folder="files")
    got = []
    reader = threading.Thread(
        target=lambda: [got.append(part_of(orders.claim_next("folder", 0.0, i))) for i in range(3)]
    )
    reader.start()
    for part in "abc":
        assert ask(orders, part) == ""
    reader.join(120)
    assert got == ["a", "b", "c"]


def test_a_file_whose_part_went_without_its_frame_is_owed_to_nobody_else(opened):
    orders, answered = opened(TriggerOptions(deadline_s=0.02, queue=9), folder="files")
    ask(orders, "gone")
    wait_until(lambda: answered)
    assert answered == [("gone", "late: no verdict within 20 ms")]
    assert orders.claim_next("folder", 0.0, 0) is None  # it was gone's
    ask(orders, "next", asked_s=time.monotonic() + 120)
    assert part_of(orders.claim_next("folder", 0.0, 1)) == "next"


@pytest.mark.parametrize("kind", ["fired", "arriving"])
def test_after_a_missed_frame_none_is_used_until_it_was_quiet(kind):
    station = Station(kind, delay_s=0.0, skip=0)
    missed, following = (Order(Trigger(part, 1.0, "http"), "cam", 99.0) for part in ("missed", "following"))
    station.waiting.append(missed)
    missed.fired_s = 1.0
    station.give_up(missed, 2.0)
    station.waiting.append(following)
    assert station.to_fire(2.5) is None
    following.fired_s = 2.1 if kind == "arriving" else None
    assert station.claim(2.5, 0) is None  # this one is the missed part's, come late
    assert station.claim(2.5 + SETTLE_S / 2, 1) is None
    after_s = 2.5 + 2 * SETTLE_S
    if kind == "fired":
        assert station.to_fire(after_s) is following
        following.fired_s = after_s
    assert part_of(station.claim(after_s + 0.1, 2)) == "following"


def test_a_camera_is_triggered_for_one_part_after_the_other(opened):
    orders, _ = opened(cam="fired")
    ask(orders, "a"), ask(orders, "b")
    first = orders.to_fire("cam")
    assert part_of(first) == "a"
    assert orders._stations["cam"].to_fire(time.monotonic()) is None  # its frame is under way
    assert orders.claim("cam", first.fired_s, 0) is None  # taken before it was told to
    assert part_of(orders.claim("cam", time.monotonic(), 1)) == "a"
    assert part_of(orders.to_fire("cam")) == "b"


def test_refusals_are_said_and_counted(opened):
    orders, _ = opened(TriggerOptions(deadline_s=60.0, queue=2, skip=0), left="free", right="free")
    assert ask(orders, "a") == ""
    assert ask(orders, "a") == TWICE and ask(orders, "a", "left") == TWICE
    assert ask(orders, "b", "left") == ""
    assert ask(orders, "c") == FULL
    assert ask(orders, "c", "middle") == NO_SOURCE
    counts = orders.counts()
    assert (counts.taken, counts.waiting, counts.refused) == (3, 3, 4)
    orders.close()
    assert ask(orders, "d") == STOPPED and Orders().take(Trigger("e", 0.0, "http")) == STOPPED


def test_one_part_may_be_asked_of_two_sources_at_a_time(opened):
    orders, _ = opened(left="free", right="free")
    assert ask(orders, "a", "left") == ask(orders, "a", "right") == ""


def test_a_part_without_an_id_is_counted(opened):
    orders, _ = opened()
    for _ in range(3):
        ask(orders)
    assert [part_of(orders.claim("cam", time.monotonic(), i)) for i in range(3)] == ["1", "2", "3"]


def test_the_deadline_answers_once_and_the_verdict_after_it_is_late(opened):
    orders, answered = opened(TriggerOptions(deadline_s=0.02, queue=9, skip=0))
    ask(orders, "a")
    order = orders.claim("cam", time.monotonic(), 0)
    assert order is not None
    wait_until(lambda: answered)
    assert not orders.finish(order) and not orders.finish(order)
    counts = orders.counts()
    assert len(answered) == 1
    assert (counts.taken, counts.answered, counts.late, counts.lost, counts.waiting) == (1, 1, 1, 0, 0)
    assert not counts.complete


def test_a_part_that_got_no_frame_is_lost(opened):
    orders, answered = opened(TriggerOptions(deadline_s=0.02, skip=0))
    ask(orders, "a")
    wait_until(lambda: answered)
    assert orders.claim("cam", time.monotonic(), 0) is None  # the part has gone
    assert orders.counts().lost == 1


def test_in_time_is_answered_by_the_verdict_alone(opened):
    orders, answered = opened()
    ask(orders, "a")
    assert orders.finish(orders.claim("cam", time.monotonic(), 0))
    orders.close()
    counts = orders.counts()
    assert answered == [] and counts.complete and counts.answered == 1 and counts.p99_ms is not None
    assert counts.text().startswith("1 triggers: 1 answered, 0 late, 0 lost; trigger to answer ")


def test_closing_answers_what_waits_and_wakes_who_waits(opened):
    orders, answered = opened(cam="free", folder="files", gig="fired")
    reader = threading.Thread(target=orders.claim_next, args=("folder", 0.0, 0))
    firing = threading.Thread(target=orders.to_fire, args=("gig",))
    ask(orders, "a", "cam")
    reader.start(), firing.start()
    orders.close()
    reader.join(120), firing.join(30)
    assert not reader.is_alive() and not firing.is_alive()
    assert answered == [("a", "stopped: the inspection ended before the verdict")]
    orders.close()
    assert len(answered) == 1


def test_every_frame_of_a_camera_triggered_by_the_line_is_a_part(opened):
    orders, _ = opened(TriggerOptions(deadline_s=60.0, queue=2, each_frame=True), cam="free")
    claimed = [orders.claim("cam", 5.0 + i, i) for i in range(3)]
    assert [part_of(order) for order in claimed] == ["1", "2", None]  # the third finds the queue full
    assert claimed[0].trigger == Trigger("1", 5.0, "camera", "cam")
    assert orders.counts().refused == 1


def test_a_defect_in_one_answer_is_no_silence_for_the_next(capsys):
    answered = []

    def answer(order, reason):
        answered.append(order.trigger.part)
        if order.trigger.part == "a":
            raise ValueError("a defect")

    with Orders(TriggerOptions(deadline_s=0.02)) as orders:
        orders.open({"cam": "free"}, answer)
        for part in "ab":
            ask(orders, part)
            wait_until(lambda wanted=part: wanted in answered)
    assert "the part a could not be answered: ValueError: a defect" in capsys.readouterr().err
