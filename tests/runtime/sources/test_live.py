import itertools
import queue
import threading
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import pytest

from runtime.common.errors import UserError
from runtime.sources.backoff import Backoff
from runtime.sources.camera import CameraRequest
from runtime.sources.live import MOST_LEFT_BEHIND, Live, LiveOptions
from runtime.sources.open import OpenOptions, SourceSpec, open_source
from runtime.sources.reader import Origin, to_rgb
from tests.support.fake_camera import FakeCamera
from tests.support.waiting import wait_until

FAST = Backoff(first_s=0.01, cap_s=0.05)


@pytest.fixture
def camera(monkeypatch: pytest.MonkeyPatch) -> FakeCamera:
    return FakeCamera().install(monkeypatch)


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    wait_until(lambda: set(threading.enumerate()) <= before, "a thread is left")


def _open(said: list[str], **live: Any) -> Live:
    options = LiveOptions(**{"backoff": FAST, "say": said.append, **live})
    source = open_source(SourceSpec.parse("camera:0"), OpenOptions(live=options))
    assert isinstance(source, Live)
    return source


def test_a_lost_camera_comes_back_and_each_is_said_once(camera: FakeCamera, said: list[str]):
    with _open(said) as source:
        frames = iter(source)
        camera.put(10)
        assert next(frames).index == 0 and source.state == "live" and source.reconnects == 0
        camera.opens = False
        camera.put(None)
        wait_until(lambda: said)
        first = source._loss
        wait_until(lambda: len(camera.opened_with) >= 5)  # attempts that fail, and say nothing
        assert first is not None and source._loss is not None and source._loss.since_s == first.since_s
        assert said == ["camera:0 is lost (none any more); trying again until it is back"]
        assert source.state.startswith("reconnecting since 20") and "camera 0 must open" in source.state
        camera.opens = True
        camera.put(30)
        after = next(frames)
        assert (after.index, after.image[0, 0].tolist()) == (1, [30, 30, 0])  # the count goes on
        wait_until(lambda: len(said) == 2)
        assert said[1].startswith("camera:0 is back after ") and said[1].endswith(" s")
        assert source.reconnects == 1 and source.state == "live" and source.dropped == 0
        camera.put(None, 40)
        assert next(frames).index == 2 and source.reconnects == 2
        wait_until(lambda: len(said) == 4)
        camera.put(None)
    assert source.state == "ended" and camera.released


def test_without_reconnecting_the_first_loss_is_an_error(camera: FakeCamera, said: list[str]):
    with _open(said, backoff=None) as source:
        camera.put(10, None)
        with pytest.raises(UserError, match=r"camera:0 must keep delivering.*none any more"):
            list(source)
    assert not said and len(camera.opened_with) == 1


def test_a_source_that_is_not_there_yet_can_be_waited_for(camera: FakeCamera, said: list[str]):
    camera.opens = False
    with pytest.raises(UserError, match="camera 0 must open"):
        _open(said)
    with _open(said, wait=True) as source:
        wait_until(lambda: len(camera.opened_with) >= 3)
        camera.opens = True
        camera.put(50)
        assert next(iter(source)).index == 0
        camera.put(None)
    assert len(said) == 2 and "camera 0 must open" in said[0]


def test_closing_a_lost_camera_ends_its_iteration(camera: FakeCamera, said: list[str]):
    seen: list[object] = []
    with _open(said, backoff=Backoff(first_s=3600)) as source:
        reading = threading.Thread(target=lambda: seen.extend(source))
        reading.start()
        camera.put(None)
        wait_until(lambda: said)
    reading.join(120)
    assert not reading.is_alive() and not seen


class Capture:
    """One connection: every picture put in is read, an exception is raised, and `read` blocks as a driver may."""

    def __init__(self) -> None:
        self.results: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.released = threading.Event()

    def read(self) -> tuple[bool, Any]:
        result = self.results.get()
        if isinstance(result, Exception):
            raise result
        return result is not None, result

    def release(self) -> None:
        self.released.set()


def _picture(level: int) -> np.ndarray:
    return np.full((4, 6, 3), level, np.uint8)


def test_a_silent_capture_is_replaced_and_what_it_says_later_is_ignored(
    said: list[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("runtime.sources.live.GRACE_S", 0.05)
    captures = [Capture(), Capture()]
    opening = iter(captures)
    origin = Origin("stream", "stream", lambda: next(opening))
    with Live(origin, LiveOptions(FAST, stall_after_s=0.1, say=said.append)) as source:
        captures[0].results.put(_picture(1))
        assert source.take(30).image[0, 0, 0] == 1
        wait_until(lambda: said)
        assert said == ["stream is lost (no frame for 0.1 s); trying again until it is back"]
        captures[0].results.put(_picture(2))  # the stuck read returns after all
        assert captures[0].released.wait(30)
        captures[1].results.put(_picture(3))
        after = source.take(30)
        assert after.image[0, 0, 0] == 3 and after.index == 1
        captures[1].results.put(None)


def test_a_capture_that_keeps_delivering_is_never_silent(said: list[str]):
    capture = Capture()
    with Live(Origin("s", "s", lambda: capture), LiveOptions(FAST, stall_after_s=0.5, say=said.append)) as source:
        for i in range(60):  # more than twice as long as silence is borne
            capture.results.put(_picture(i))
            assert source.take(30).index == i
            threading.Event().wait(0.02)
        capture.results.put(None)
    assert not said


def test_captures_stuck_for_ever_do_not_pile_up(said: list[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("runtime.sources.live.GRACE_S", 0.01)
    monkeypatch.setattr("runtime.sources.live.JOIN_S", 0.01)
    captures: list[Capture] = []

    def open_another() -> Capture:
        captures.append(Capture())
        return captures[-1]

    with Live(Origin("stream", "stream", open_another), LiveOptions(FAST, 0.02, say=said.append)) as source:
        wait_until(lambda: len(captures) == MOST_LEFT_BEHIND)
        assert source.take(0.5) is None  # time for many more
        assert len(captures) == MOST_LEFT_BEHIND and len(said) == 1
        captures[0].results.put(None)  # one returns, and makes room for another
        wait_until(lambda: len(captures) == MOST_LEFT_BEHIND + 1)
    for capture in captures:
        capture.results.put(None)
    assert all(capture.released.wait(30) for capture in captures)


def test_silence_is_no_loss_where_it_may_be(said: list[str]):
    capture = Capture()
    with Live(Origin("t", "t", lambda: capture), LiveOptions(FAST, stall_after_s=None, say=said.append)) as source:
        assert source.take(0.3) is None and source.state == "live"
        capture.results.put(_picture(7))
        assert source.take(30).index == 0
        threading.Timer(0.05, capture.results.put, [_picture(8)]).start()  # lets the reader see that it is to stop
    assert capture.released.wait(30) and not said


def test_whatever_a_driver_raises_is_a_loss(said: list[str]):
    captures = [Capture(), Capture()]
    opening = iter(captures)
    with Live(Origin("s", "s", lambda: next(opening)), LiveOptions(FAST, say=said.append)) as source:
        captures[0].results.put(cv2.error("broken"))
        captures[1].results.put(_picture(9))
        assert source.take(30).image[0, 0, 0] == 9
        assert captures[0].released.is_set() and "error: broken" in said[0]
        captures[1].results.put(None)


def test_captures_of_grey_and_of_four_channels_become_rgb():
    grey = np.full((2, 3), 9, np.uint8)
    assert to_rgb(grey).tolist() == np.full((2, 3, 3), 9).tolist()
    assert to_rgb(np.array([[[1, 2, 3, 255]]], np.uint8)).tolist() == [[[3, 2, 1]]]
    with pytest.raises(UserError, match="uint16"):
        to_rgb(grey.astype(np.uint16))
    with pytest.raises(UserError, match=r"8-bit.*\(2, 3, 2\)"):
        to_rgb(np.zeros((2, 3, 2), np.uint8))


def test_waits_double_up_to_their_cap_with_a_little_jitter():
    plain = Backoff(0.5, 2, 30, 0.1).delays_s(uniform=lambda: 0.5)
    assert list(itertools.islice(plain, 8)) == [0.5, 1, 2, 4, 8, 16, 30, 30]
    low, high = (list(itertools.islice(Backoff(1, 2, 4, 0.1).delays_s(lambda u=u: u), 4)) for u in (0.0, 1.0))
    assert low == pytest.approx([0.9, 1.8, 3.6, 3.6]) and high == pytest.approx([1.1, 2.2, 4.4, 4.4])
    drawn = list(itertools.islice(Backoff(1, 1, 1, 0.1).delays_s(), 200))
    assert min(drawn) >= 0.9 and max(drawn) <= 1.1 and len(set(drawn)) > 100


REQUEST = CameraRequest(size=(1280, 720), fps=60, exposure_ms=5, pixel_format="MJPG")


def test_what_a_camera_is_asked_for_and_gave_is_said_once(camera: FakeCamera, said: list[str]):
    options = OpenOptions(LiveOptions(FAST, say=said.append), REQUEST)
    with open_source(SourceSpec.parse("camera:1"), options) as source:
        assert said == ["camera:1: 1280x720, 60 fps, exposure 5 ms, format MJPG"]
        assert camera.properties[cv2.CAP_PROP_EXPOSURE] == 50  # V4L2 counts in 100 µs
        assert camera.properties[cv2.CAP_PROP_AUTO_EXPOSURE] == 1  # V4L2_EXPOSURE_MANUAL
        camera.put(None, 20)
        assert next(iter(source)).index == 0
        wait_until(lambda: len(said) == 3)  # lost and back: what it gives is as before
        camera.put(None)


def test_a_refused_request_is_said(camera: FakeCamera, said: list[str]):
    camera.limits = {cv2.CAP_PROP_FPS: 30, cv2.CAP_PROP_FRAME_WIDTH: 640, cv2.CAP_PROP_EXPOSURE: 20}
    with open_source(SourceSpec.parse("camera:0"), OpenOptions(LiveOptions(say=said.append), REQUEST)):
        camera.put(None)
    assert said == [
        "camera:0: 640x720 (asked for 1280x720: refused), 30 fps (asked for 60: refused), "
        "exposure 2 ms (asked for 5 ms: refused), format MJPG"
    ]
    camera.limits = {cv2.CAP_PROP_AUTO_EXPOSURE: 0}
    with open_source(
        SourceSpec.parse("camera:0"), OpenOptions(LiveOptions(say=said.append), CameraRequest(exposure_ms=5))
    ):
        camera.put(None)
    assert "automatic exposure (asked for 5 ms: refused)" in said[1]
