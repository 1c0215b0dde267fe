"""A loop that ends while others still ask it for something."""

import gc
import threading
import time
import warnings

import pytest

from runtime.controller import loop_thread
from runtime.controller.loop_thread import LoopThread


async def answer() -> int:
    return 7


@pytest.fixture
def unawaited():
    """Return the warnings that came, among them those of coroutines that nobody awaited."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        yield found
        gc.collect()
        assert [str(one.message) for one in found] == []


def test_what_is_asked_of_a_loop_that_has_ended_is_an_error_and_no_forgotten_coroutine(unawaited):
    loop = LoopThread("test")
    assert loop.call(answer(), 20) == 7
    loop.close()
    with pytest.raises(OSError, match="the server has ended"):
        loop.call(answer(), 20)


def test_what_a_loop_has_no_time_to_begin_is_an_error_and_no_forgotten_coroutine(unawaited):
    loop, goes_on = LoopThread("test"), threading.Event()
    loop._loop.call_soon_threadsafe(goes_on.wait, 60)
    with pytest.raises(OSError, match=r"did not answer within 0\.05 s"):
        loop.call(answer(), 0.05)
    goes_on.set()
    assert loop.call(answer(), 20) == 7
    loop.close()


def test_who_ends_it_at_the_same_time_says_goodbye_once(unawaited, monkeypatch):
    monkeypatch.setattr(loop_thread, "GOODBYE_S", 0.05)
    loop, said = LoopThread("test"), []

    async def goodbye() -> None:
        said.append(time.monotonic())

    ending = [threading.Thread(target=loop.end, args=(goodbye,)) for _ in range(4)]
    for thread in ending:
        thread.start()
    for thread in ending:
        thread.join(120)
    loop.end(goodbye)
    assert len(said) == 1 and not any(thread.is_alive() for thread in ending)
