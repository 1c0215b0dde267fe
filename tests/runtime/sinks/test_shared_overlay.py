"""One overlay for all sinks, and no more memory for those that wait than is allowed."""

import threading
import time
import weakref
from pathlib import Path

import numpy as np
import pytest

from runtime.images.overlay import draw
from runtime.sinks import shared_overlay
from runtime.sinks.delivery import Deliveries
from runtime.sinks.event_ring import Window
from runtime.sinks.events import EventOptions, EventSink
from runtime.sinks.folder import FolderSink
from runtime.sinks.video import VideoSink
from tests.support.judgements import judgement

MAXIMUM = 3.0


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The thread of each drawing."""
    threads: list[str] = []

    def noting(*arguments):
        threads.append(threading.current_thread().name)
        time.sleep(0.01)  # so that the other sinks come while it is drawn
        return draw(*arguments)

    monkeypatch.setattr(shared_overlay, "draw", noting)
    return threads


def test_a_frame_is_drawn_once_for_a_folder_a_video_and_events(tmp_path: Path, drawn: list[str]) -> None:
    options = EventOptions(Window(0), Window(0))
    sinks = [FolderSink(tmp_path / "out", MAXIMUM), VideoSink(tmp_path / "v.avi", MAXIMUM)]
    with Deliveries([*sinks, EventSink(tmp_path / "events", MAXIMUM, options)], patience_s=30.0) as deliveries:
        for index in range(6):
            deliveries.offer(judgement(index, score=2.0))
    assert [counts.delivered for counts in deliveries.counts()] == [6, 6, 6]
    assert len(list((tmp_path / "events").glob("*/overlays/*.jpg"))) == 6
    assert len(drawn) == 6


def test_it_is_the_picture_that_draw_makes_and_nobody_can_write_into_it() -> None:
    one = judgement(score=2.0)
    picture = one.overlay(MAXIMUM)
    np.testing.assert_array_equal(picture, draw(one.frame.image, one.result, MAXIMUM))
    assert one.overlay(MAXIMUM) is picture and not picture.flags.writeable
    assert not np.array_equal(one.without_picture().overlay(MAXIMUM), picture)  # of another picture, so drawn anew


def test_overlays_that_wait_are_bounded(monkeypatch: pytest.MonkeyPatch, drawn: list[str]) -> None:
    waiting = [judgement(index, score=2.0) for index in range(4)]
    monkeypatch.setattr(shared_overlay, "KEPT_BYTES", 2 * waiting[0].frame.image.nbytes)
    monkeypatch.setattr(shared_overlay, "_alive", weakref.WeakValueDictionary())  # without what other tests hold
    for one in waiting:
        one.overlay(MAXIMUM)
    for one in waiting:
        one.overlay(MAXIMUM)
    assert len(drawn) == 4 + 2  # two had no room
    waiting[0] = waiting[1] = waiting[2]  # these have left their queues, and make room
    for _ in range(2):
        waiting[3].overlay(MAXIMUM)
    assert len(drawn) == 4 + 2 + 1
