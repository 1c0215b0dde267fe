"""Single key presses from the terminal, without Enter; nothing where there is no terminal."""

import contextlib
import os
import select
import sys
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def key_reader() -> Iterator[Callable[[], str]]:
    """Yield a function that returns the keys pressed since its last call ("" for none), without waiting.

    The terminal passes keys on at once while the context is open, and is put back afterwards.
    """
    if not _owns_terminal():
        yield lambda: ""
        return
    import termios  # POSIX only, as _owns_terminal has checked
    import tty

    terminal = sys.stdin.fileno()

    def pressed() -> str:
        ready, _, _ = select.select([terminal], [], [], 0)
        return os.read(terminal, 64).decode(errors="ignore") if ready else ""

    before = termios.tcgetattr(terminal)
    tty.setcbreak(terminal)
    try:
        yield pressed
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


def _owns_terminal() -> bool:
    """Return whether stdin is a terminal with this process in its foreground; others are stopped for changing it."""
    if os.name != "posix" or sys.stdin is None or not sys.stdin.isatty():
        return False
    try:
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except OSError:  # a terminal, but not the one that controls this process
        return False
