"""A TensorRT build that shows how far it is and stops on Ctrl-C."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from tqdm import tqdm

from runtime.common.interrupts import on_interrupt


class InterruptFlag(threading.Event):
    """Set by Ctrl-C or SIGTERM, whose number it keeps."""

    number: int = signal.SIGINT

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Take a signal."""
        self.number = number
        self.set()


@contextmanager
def interrupt_flag() -> Iterator[InterruptFlag]:
    """Turn Ctrl-C and SIGTERM into a flag: an exception must not cross the library's frames between its calls to us."""
    interrupted = InterruptFlag()
    with on_interrupt(interrupted.receive):
        yield interrupted


def progress_monitor(module: Any, show: bool, interrupted: threading.Event) -> Any:
    """Return an `IProgressMonitor` that cancels the build once `interrupted` is set.

    With `show` it draws the outermost phase as a bar on stderr, the current inner phase beside it.
    """
    base: Any = module.IProgressMonitor

    class ProgressMonitor(base):  # type: ignore[misc]  # the class exists only at run time
        def __init__(self) -> None:
            base.__init__(self)  # pybind11 wants its own initialiser, not super()
            self._outermost = ""
            self._bar = tqdm(desc="building", file=sys.stderr, leave=False, disable=None if show else True)

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            if parent is None:
                self._outermost = name
                self._bar.reset(total=steps)
            self._bar.set_postfix_str(name)

        def step_complete(self, name: str, step: int) -> bool:
            if name == self._outermost:
                self._bar.update(1)
            return not interrupted.is_set()

        def phase_finish(self, name: str) -> None:
            if name == self._outermost:
                self._bar.close()

    return ProgressMonitor()
