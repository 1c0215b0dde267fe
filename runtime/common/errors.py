"""One way to end a command: a line that a person can act on, and an exit status a script can test."""

import contextlib
import errno
import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from runtime.common.notices import LAST_WORD_S, reader_gone, say

USAGE_STATUS = 2  # bad input, missing dependency, full disk
INTERRUPTED_STATUS = 128 + signal.SIGINT  # 130, what a shell reports for Ctrl-C
# the signals that end a command in good order, and what is said of each
SIGNALS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
BROKEN_PIPE_STATUS = 128 + 13  # 141, what a shell reports where the reader of stdout has gone (`| head`)


class UserError(Exception):
    """Something only the user can mend.

    The message is one line: what was expected, what was found, the cure.
    """

    def __init__(self, expected: str, found: str = "", cure: str = "") -> None:
        parts = [expected, found and f"found {found}", cure]
        super().__init__("; ".join(part for part in parts if part))


class Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a command as Ctrl-C does: what was begun is taken away, what can go on later stays."""


def _os_error_line(error: OSError) -> str:
    where = f" ({error.filename})" if error.filename else ""
    if error.errno == errno.ENOSPC:
        return f"the disk is full{where}; free some space and run the command again"
    return f"{error.strerror or error}{where}"


@contextmanager
def _terminable(received: list[int]) -> Iterator[None]:
    """Let SIGTERM raise `Terminated`, and note it and Ctrl-C in `received`.

    Without effect outside of the main thread, which alone gets signals.
    """

    def terminate(number: int, frame: FrameType | None) -> None:
        received.append(number)
        raise Terminated

    def interrupt(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if callable(interrupted):
            interrupted(number, frame)

    interrupted, terminated = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread() or terminated in (signal.SIG_IGN, None):
        yield
        return
    signal.signal(signal.SIGTERM, terminate)
    if callable(interrupted):
        signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, terminated)
        if callable(interrupted):
            signal.signal(signal.SIGINT, interrupted)


def _open_standard_streams() -> None:
    """Put the null device where the program was started without stdin, stdout or stderr (`2>&-`).

    Or the next file opened would have that number, and get what libraries print.
    """
    for handle in range(3):
        if not _is_open(handle):
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one


def _is_open(handle: int) -> bool:
    try:
        os.fstat(handle)
    except OSError:
        return False
    return True


def _drop_unflushed() -> None:
    """Forget what stdout does not take, or Python would try again on leaving, and complain."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        try:
            sys.stdout.flush()
        except OSError:
            handle = os.open(os.devnull, os.O_WRONLY)
            os.dup2(handle, sys.stdout.fileno())
            os.close(handle)


def _memory_line(error: Exception) -> str:
    """Return what to say where there was too little memory; any other error is raised again.

    torch says so, on CPU and GPU, with a RuntimeError, whose text is of no use to a person.
    """
    if isinstance(error, MemoryError):
        reason = f" ({error})" if str(error) else ""
    elif type(error).__name__ == "OutOfMemoryError" or "allocate memory" in str(error):
        reason = ""
    else:
        raise error
    return f"more memory is needed than there is{reason}; close other programs, or use smaller images"


def run_command(main: Callable[[Sequence[str] | None], int | None], argv: Sequence[str] | None = None) -> int:
    """Run a command's `main` and turn what a user can mend into one line on stderr.

    Returns the exit status: 0, 2 for bad input (`UserError`, `OSError`) and for too little memory, 130 for Ctrl-C, 143
    for SIGTERM, also where a library took the signal's exception for a failure of its own (an extension that is being
    imported does), and 141, without a word, where the reader of stdout has gone. Any other exception is a defect of the
    program and keeps its traceback.
    """
    _open_standard_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names may hold bytes that no encoding knows
    received: list[int] = []
    try:
        with _terminable(received):
            status = main(argv) or 0
            if sys.stdout is not None:
                sys.stdout.flush()
            return status
    except UserError as error:
        line = str(error)
    except OSError as error:
        gone = isinstance(error, BrokenPipeError) and reader_gone(sys.stdout)
        _drop_unflushed()
        if gone:
            return BROKEN_PIPE_STATUS
        line = _os_error_line(error)
    except (MemoryError, RuntimeError) as error:
        line = _memory_line(error)
    except KeyboardInterrupt as error:
        return ended_by(signal.SIGTERM if isinstance(error, Terminated) else signal.SIGINT)
    if received:
        return ended_by(received[0])
    say(f"error: {' '.join(line.split())}", LAST_WORD_S)
    return USAGE_STATUS


def ended_by(number: int) -> int:
    """Say that a signal ended the command and return the exit status, 128 and its number as a shell has it."""
    say(f"\n{SIGNALS[signal.Signals(number)]}; what was written before is whole", LAST_WORD_S)
    return 128 + number
