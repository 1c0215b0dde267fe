"""An event loop in a thread of its own, for servers beside the inspection."""

import asyncio
import concurrent.futures
import contextlib
import logging
import threading
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

Value = TypeVar("Value")
END_S = 3.0
GOODBYE_S = 0.6  # more than clients let pass between two looks


class LoopThread:
    """Runs coroutines for threads that may wait. `quiet` are loggers of libraries: they tell what strangers send."""

    def __init__(self, name: str, *quiet: str) -> None:
        for logger in map(logging.getLogger, quiet):
            logger.propagate = False
            logger.setLevel(logging.CRITICAL + 1)
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(lambda loop, context: None)  # a connection's end is no news
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def call(self, work: Coroutine[Any, Any, Value], timeout_s: float) -> Value:
        """Return what `work` does, or raise what it raises; `OSError` if it takes longer than `timeout_s`."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(timeout_s)
        except (concurrent.futures.TimeoutError, TimeoutError):
            future.cancel()
            raise OSError(f"the server did not answer within {timeout_s:g} s") from None

    def end(self, goodbye: Coroutine[Any, Any, Any]) -> None:
        """Let clients read for `GOODBYE_S` what was said last, do `goodbye` and close; a second call does nothing."""
        if self._loop.is_closed():
            goodbye.close()
            return
        time.sleep(GOODBYE_S)
        with contextlib.suppress(Exception):  # whatever a library has to say when it is closed
            self.call(goodbye, END_S)
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
