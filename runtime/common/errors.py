"""One way to end a command: a line that a person can act on, and an exit status a script can test."""

import errno
import io
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

USAGE_STATUS = 2  # bad input, missing dependency, full disk
INTERRUPTED_STATUS = 128 + signal.SIGINT  # 130, what a shell reports for Ctrl-C


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


def run_command(main: Callable[[Sequence[str] | None], int | None], argv: Sequence[str] | None = None) -> int:
    """Run a command's `main` and turn what a user can mend into one line on stderr.

    Returns the exit status: 0, 2 for bad input (`UserError`, `OSError`) and for too little memory, 130 for Ctrl-C, 143
    for SIGTERM, also where a library took the signal's exception for a failure of its own (an extension that is being
    imported does). Any other exception is a defect of the program and keeps its traceback.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names may hold bytes that no encoding knows
    received: list[int] = []
    try:
        with _terminable(received):
            return main(argv) or 0
    except UserError as error:
        line = str(error)
    except OSError as error:
        line = _os_error_line(error)
    except MemoryError as error:
        line = f"more memory is needed than there is{f' ({error})' if str(error) else ''}; close other programs"
    except KeyboardInterrupt as error:
        return _ended_by(signal.SIGTERM if isinstance(error, Terminated) else signal.SIGINT)
    if received:
        return _ended_by(received[0])
    print(f"error: {' '.join(line.split())}", file=sys.stderr)
    return USAGE_STATUS


def _ended_by(number: int) -> int:
    word = "terminated" if number == signal.SIGTERM else "interrupted"
    print(f"\n{word}; what was written before is whole", file=sys.stderr)
    return 128 + number
