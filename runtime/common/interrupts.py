"""Ctrl-C and SIGTERM: as a request to end, where what was begun is finished, or at once, but never lost."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

from runtime.common.errors import INTERRUPTED_STATUS, SIGNALS, Terminated, ended_by

CALLS = ("command", "run_command", "serve")  # the functions that a program's module ends by calling
DEFAULTS = (signal.default_int_handler, signal.SIG_DFL)  # of SIGINT: nobody has asked for it


@contextmanager
def on_interrupt(handle: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Let `handle` take Ctrl-C and SIGTERM while open.

    Without effect outside of the main thread, which alone gets signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def signals_blocked() -> Iterator[None]:
    """Have a process that is started meanwhile get no Ctrl-C and no SIGTERM: we end it, when the inspection has."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def interruption(number: int) -> KeyboardInterrupt:
    """Return what is raised for a signal."""
    return Terminated() if number == signal.SIGTERM else KeyboardInterrupt()


@contextmanager
def lasting_interrupt() -> Iterator[Callable[[], None]]:
    """Let Ctrl-C and SIGTERM raise `KeyboardInterrupt`, and yield a check that raises it again where it got lost.

    Python prints and forgets what is raised within a destructor or a weak reference's callback, and a thread pool
    has one that runs whenever a pool goes. Without effect outside of the main thread.
    """
    received: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        received.append(number)
        raise interruption(number)

    def check() -> None:
        if received:
            raise interruption(received[0])

    with on_interrupt(handle):
        yield check


def quiet_start() -> None:
    """Let Ctrl-C end a command in one line while its modules are imported, which takes seconds.

    What is imported then would meet an exception anywhere, print it as a traceback or take it for a broken
    installation. Without effect in programs that import the packages, which decide for themselves.
    """
    program = os.path.basename(sys.argv[0]) if sys.argv else ""  # noqa: PTH119 - pathlib takes its time to import
    if program != "-m" and not program.startswith("cflow-"):
        return
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) in DEFAULTS:
        signal.signal(signal.SIGINT, _end_or_raise)


def _end_or_raise(number: int, frame: FrameType | None) -> None:
    if not _runs(frame):
        os.write(2, b"\ninterrupted\n")
        os._exit(INTERRUPTED_STATUS)
    raise KeyboardInterrupt


def _runs(frame: FrameType | None) -> bool:
    """Return whether the command has been called, and is not being imported or at its very end."""
    inner = None
    while frame is not None:
        if frame.f_globals.get("__name__") == "__main__" and frame.f_code.co_name == "<module>":
            return inner is not None and inner.f_code.co_name in CALLS
        inner, frame = frame, frame.f_back
    return False


class StopSignals:
    """A request to end: while open, the first Ctrl-C or SIGTERM calls what `call` was given; a second one ends at once.

    So does the first one before `call`: what is being opened then may wait for ever, as a pipe does. Without effect
    outside of the main thread, which alone may handle signals.
    """

    def __init__(self) -> None:
        self._received: signal.Signals | None = None
        self._stop: Callable[[], None] | None = None  # nothing is under way that could be finished
        self._before: dict[signal.Signals, Any] = {}

    def call(self, stop: Callable[[], None]) -> None:
        """Call `stop` for a signal from now on; it runs within the main thread's work."""
        self._stop = stop

    def status(self) -> int | None:
        """Return the exit status, 128 and the signal's number as a shell has it, and say so; None without a signal."""
        if self._received is None:
            return None
        return ended_by(self._received)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._received is not None or self._stop is None:  # somebody who does not want to wait
            before = self._before[signal.Signals(number)]
            if callable(before):  # who ends the command by it wants to know which one came
                before(number, frame)
            raise interruption(number)
        self._received = signal.Signals(number)
        self._stop()

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()
