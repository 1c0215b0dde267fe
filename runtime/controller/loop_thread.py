"""An event loop in a thread of its own, for servers beside the inspection."""

import asyncio
import concurrent.futures
import contextlib
import inspect
import logging
import selectors
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

Value = TypeVar("Value")
END_S = 3.0
SHARE = 0.2  # of a core, which the loop's thread may take for long
BURST_S = 0.2  # of computing at once: an answer or a new client never waits for others' polling before
LONGEST_REST_S = 0.05
GOODBYE_S = 0.6  # more than clients let pass between two looks


class _GivingWay(selectors.DefaultSelector):
    """Waits for sockets, and longer where its thread has computed more than `SHARE` of the time since.

    The loop computes in the Python that the inspection needs too; what many clients ask waits, the inspection does not.
    """

    def __init__(self) -> None:
        super().__init__()
        self._credit_s = BURST_S
        self._now_s, self._computed_s = time.monotonic(), 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return what is ready, as every selector does."""
        now_s, computed_s = time.monotonic(), time.thread_time()
        earned_s = SHARE * (now_s - self._now_s) - (computed_s - self._computed_s)
        self._credit_s = min(BURST_S, self._credit_s + earned_s)
        self._now_s, self._computed_s = now_s, computed_s
        if self._credit_s < 0:
            time.sleep(min(-self._credit_s / SHARE, LONGEST_REST_S))
        return super().select(timeout)


class LoopThread:
    """Runs coroutines for threads that may wait. `quiet` are loggers of libraries: they tell what strangers send."""

    def __init__(self, name: str, *quiet: str) -> None:
        for logger in map(logging.getLogger, quiet):
            logger.propagate = False
            logger.setLevel(logging.CRITICAL + 1)
        self._selector = _GivingWay()
        self._loop = asyncio.SelectorEventLoop(self._selector)
        self._loop.set_exception_handler(lambda loop, context: None)  # a connection's end is no news
        self._ending = threading.Lock()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def call(self, work: Coroutine[Any, Any, Value], timeout_s: float) -> Value:
        """Return what `work` does or raise what it raises; `OSError` after `timeout_s` and where the loop has ended."""
        try:
            return self._result(work, timeout_s)
        finally:
            if inspect.getcoroutinestate(work) == inspect.CORO_CREATED:
                work.close()  # the loop had no time for it, or has ended

    def _result(self, work: Coroutine[Any, Any, Value], timeout_s: float) -> Value:
        try:
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        except RuntimeError:
            raise OSError("the server has ended") from None
        try:
            return future.result(timeout_s)
        except (concurrent.futures.TimeoutError, TimeoutError):
            future.cancel()
            raise OSError(f"the server did not answer within {timeout_s:g} s") from None

    def end(self, goodbye: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        """Let clients read for `GOODBYE_S` what was said last, do `goodbye` and close; a second call does nothing."""
        with self._ending:
            if self._loop.is_closed():
                return
            time.sleep(GOODBYE_S)
            with contextlib.suppress(Exception):  # whatever a library has to say when it is closed
                self.call(goodbye(), END_S)
            self.close()

    def close(self) -> None:
        """End the loop and its thread; a second call does nothing."""
        if self._loop.is_closed():
            return
        self._loop.call_soon_threadsafe(self._cancel)
        self._thread.join(END_S)
        if not self._thread.is_alive():
            self._loop.close()

    def _cancel(self) -> None:
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.call_soon(self._loop.stop)
