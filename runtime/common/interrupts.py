"""Ctrl-C and SIGTERM: as a request to end, where what was begun is finished, or at once, but never lost."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}


@contextmanager
def on_interrupt(handle: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Let `handle` take Ctrl-C while open; without effect outside of the main thread, which alone gets signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def lasting_interrupt() -> Iterator[Callable[[], None]]:
    """Let Ctrl-C raise `KeyboardInterrupt` as ever, and yield a check that raises it again where it got lost.

    Python prints and forgets what is raised within a destructor or a weak reference's callback, and a thread pool
    has one that runs whenever a pool goes. Without effect outside of the main thread.
    """
    received = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        received.set()
        raise KeyboardInterrupt

    def check() -> None:
        if received.is_set():
            raise KeyboardInterrupt

    with on_interrupt(handle):
        yield check


class StopSignals:
    """A request to end: while open, the first Ctrl-C or SIGTERM calls what `call` was given; a second one ends at once.

    Without effect outside of the main thread, which alone may handle signals.
    """

    def __init__(self) -> None:
        self._received: signal.Signals | None = None
        self._stop: Callable[[], None] = lambda: None
        self._before: dict[signal.Signals, Any] = {}

    def call(self, stop: Callable[[], None]) -> None:
        """Call `stop` for a signal, at once if it has come already; it runs within the main thread's work."""
        self._stop = stop
        if self._received is not None:
            stop()

    def status(self) -> int | None:
        """Return the exit status, 128 and the signal's number as a shell has it, and say so; None without a signal."""
        if self._received is None:
            return None
        print(f"\n{WORDS[self._received]}; what was written before is whole", file=sys.stderr)
        return 128 + self._received

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._received is not None:  # somebody who does not want to wait
            raise KeyboardInterrupt
        self._received = signal.Signals(number)
        self._stop()

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            for number in WORDS:
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()
