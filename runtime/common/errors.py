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
TERMINATED_STATUS = 128 + signal.SIGTERM  # 143


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
def _terminable() -> Iterator[None]:
    """Let SIGTERM raise `Terminated`; without effect outside of the main thread, which alone gets signals."""

    def handle(number: int, frame: FrameType | None) -> None:
        raise Terminated

    before = signal.getsignal(signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread() or before in (signal.SIG_IGN, None):
        yield
        return
    signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def run_command(main: Callable[[Sequence[str] | None], int | None], argv: Sequence[str] | None = None) -> int:
    """Run a command's `main` and turn what a user can mend into one line on stderr.

    Returns the exit status: 0, 2 for bad input (`UserError`, `OSError`) and for too little memory, 130 for Ctrl-C, 143
    for SIGTERM. Any other exception is a defect of the program and keeps its traceback.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names may hold bytes that no encoding knows
    try:
        with _terminable():
            return main(argv) or 0
    except UserError as error:
        line = str(error)
    except OSError as error:
        line = _os_error_line(error)
    except MemoryError as error:
        line = f"more memory is needed than there is{f' ({error})' if str(error) else ''}; close other programs"
    except KeyboardInterrupt as error:
        terminated = isinstance(error, Terminated)
        word = "terminated" if terminated else "interrupted"
        print(f"\n{word}; what was written before is whole", file=sys.stderr)
        return TERMINATED_STATUS if terminated else INTERRUPTED_STATUS
    print(f"error: {' '.join(line.split())}", file=sys.stderr)
    return USAGE_STATUS
