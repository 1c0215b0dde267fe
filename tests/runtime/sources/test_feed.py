import threading
import time

import numpy as np
import pytest

from runtime.common.errors import UserError
from runtime.sources.feed import AHEAD, Feed
from tests.support.controlled_source import ControlledSource


def grey(arrival):
    return int(arrival.frame.image[0, 0, 0])


def take_all(feed):
    found = []
    while not feed.ended:
        found += feed.take(1, 5.0)
    return found


def until(condition):
    """Wait for what another thread does; fails after a time that no machine needs."""
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


@pytest.fixture
def feed_of():
    """Return a function that makes a feed, which is closed at the end."""
    feeds = []

    def make(*sources):
        feeds.append(Feed(sources))
        return feeds[-1]

    yield make
    for feed in feeds:
        feed.close()


def test_no_frame_of_a_file_is_lost_and_few_are_read_ahead(feed_of):
    source = ControlledSource("file", False, *range(50), None)
    feed = feed_of(source)
    until(lambda: source.asked == AHEAD + 1)  # the queue is full, one more is in the thread's hand
    time.sleep(0.02)
    assert source.asked == AHEAD + 1
    assert [grey(arrival) for arrival in take_all(feed)] == list(range(50))
    assert feed.dropped(source) == 0


def test_the_newest_frame_of_a_live_source_wins_and_the_others_are_counted(feed_of):
    source = ControlledSource("camera", True, *range(20))
    feed = feed_of(source)
    until(lambda: source.asked == 21)
    assert [grey(arrival) for arrival in feed.take(1, 5.0)] == [19]
    assert feed.dropped(source) == 19
    assert feed.take(1, 0.0) == []
    source.put(77)
    assert [grey(arrival) for arrival in feed.take(1, 5.0)] == [77]
    source.dropped = 4  # those that the source itself let go
    assert feed.dropped(source) == 19 + 4


def test_sources_take_turns_however_many_frames_one_has(feed_of):
    many = ControlledSource("many", False, *range(30), None)
    few = ControlledSource("few", False, 100, 101, 102, None)
    feed = feed_of(many, few)
    until(lambda: many.asked == few.asked == AHEAD + 1)
    names = [arrival.source.name for arrival in feed.take(1, 5.0) + feed.take(1, 5.0)]
    assert sorted(names) == ["few", "many"]
    rest = take_all(feed)
    for source, expected in ((many, list(range(30))), (few, [100, 101, 102])):
        found = [a for a in rest if a.source is source]
        assert [grey(a) for a in found] == expected[1:]  # in order, the first was taken above


def test_a_batch_has_one_frame_of_each_before_a_second_of_any(feed_of):
    sources = [ControlledSource(str(i), False, *(10 * i + j for j in range(5)), None) for i in range(3)]
    feed = feed_of(*sources)
    until(lambda: all(source.asked == AHEAD + 1 for source in sources))
    assert sorted(grey(arrival) for arrival in feed.take(3, 5.0)) == [0, 10, 20]
    assert len(feed.take(2, 5.0)) == 2


def test_a_batch_waits_for_a_frame_that_can_be_expected_and_not_for_a_silent_source(feed_of, monkeypatch):
    quick, slow = ControlledSource("quick", True, 1), ControlledSource("slow", True, 2)
    feed = feed_of(quick, slow)
    until(lambda: quick.asked == slow.asked == 2)
    assert len(feed.take(2, 5.0)) == 2
    quick.put(3)
    until(lambda: quick.asked == 3)
    threading.Timer(0.05, slow.put, (4,)).start()
    assert sorted(grey(arrival) for arrival in feed.take(2, 5.0, gather_s=30.0)) == [3, 4]  # it came in time
    monkeypatch.setattr("runtime.sources.feed.RECENT_S", 0.0)  # from here on, nothing can be expected
    quick.put(5)
    assert [grey(arrival) for arrival in feed.take(2, 5.0, gather_s=1e6)] == [5]  # and so does not wait for ever
    monkeypatch.setattr("runtime.sources.feed.RECENT_S", 1e6)
    quick.put(6)
    assert [grey(arrival) for arrival in feed.take(2, 5.0, gather_s=0.01)] == [6]  # expected, but not for longer


def test_an_error_comes_after_the_frames_before_it(feed_of):
    source = ControlledSource("file", False, 1, 2, UserError("broken"))
    feed = feed_of(source)
    until(lambda: source.asked == 3)
    assert feed.failures() == []
    assert [grey(arrival) for arrival in take_all(feed)] == [1, 2]
    ((failed, error),) = feed.failures()
    assert failed is source
    assert str(error) == "broken"


@pytest.mark.parametrize("live", [False, True])
def test_closing_ends_every_thread_and_closes_every_source(live):
    waiting = ControlledSource("waits for a frame", live)
    full = ControlledSource("has too many", live, *range(100))
    feed = Feed([waiting, full])
    feed.close()
    feed.close()
    assert waiting.closed
    assert full.closed
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("frames of")]


def test_frames_are_passed_on_as_they_are(feed_of):
    image = np.arange(32 * 48 * 3, dtype=np.uint8).reshape(32, 48, 3)
    source = ControlledSource("file", False)
    source.__class__ = type("Exact", (ControlledSource,), {"__iter__": lambda self: iter([image_frame(image)])})
    (arrival,) = take_all(feed_of(source))
    assert arrival.frame.image is image


def image_frame(image):
    from runtime.sources.frame import Frame

    return Frame(image, "exact", 0, 0.0)
