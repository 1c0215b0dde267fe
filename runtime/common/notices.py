"""Lines for whoever looks at the log: what changed, said once and not once a frame.

Whatever reads stdout and stderr may have gone, stand still or be a full disk. What is written here neither raises nor
waits for it: an inspection must not end, or stand still, because of its log.
"""

import contextlib
import os
import select
import sys
import threading
import time
from functools import cache
from typing import TextIO

AT_ONCE = 512  # bytes that POSIX lets a pipe take as a whole where it takes any; Linux: 4096
LAST_WORD_S = 1.0  # how long what a command says at its end waits for a reader that stands still
_one_at_a_time = threading.Lock()  # between looking whether there is room and writing, nobody else takes it
_unsaid = 0


def say(line: str, patience_s: float = 0.0) -> None:
    """Write one line to stderr if it is taken within `patience_s`; how many were not is said with the next one."""
    global _unsaid
    missing = f"({_unsaid} lines before could not be written)\n" if _unsaid else ""
    _unsaid = 0 if write(sys.stderr, f"{missing}{line}\n", patience_s) else _unsaid + 1


def write(stream: TextIO | None, text: str, patience_s: float = 0.0) -> bool:
    """Write `text` to stdout or stderr within `patience_s`, past Python's buffer; return whether all of it was taken.

    Never raises, and never blocks for longer.
    """
    with contextlib.suppress(OSError, ValueError):  # a closed pipe, a full disk, a closed file
        return write_some(stream, encoded(stream, text), patience_s) == 0
    return False


def encoded(stream: TextIO | None, text: str) -> bytes:
    """Return `text` as `stream` takes it; what its encoding has not becomes an escape."""
    return text.encode(getattr(stream, "encoding", None) or "utf-8", "backslashreplace")


def escaped(text: str) -> str:
    """Return `text` with escapes for what cannot be printed: a line's end in a name, or what a terminal obeys."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)


def write_some(stream: TextIO | None, data: bytes, patience_s: float) -> int:
    """Write what `stream` takes of `data` within `patience_s` and return how many bytes are left.

    Raises `OSError` where the reader has gone or the disk is full, `ValueError` for a closed file.
    """
    if stream is None:  # the program was started without it
        return 0
    try:
        handle = stream.fileno()
    except (OSError, ValueError):  # no file: a stream in memory, as a notebook has
        stream.write(data.decode(stream.encoding or "utf-8"))
        stream.flush()
        return 0
    until = time.monotonic() + patience_s
    while data and _takes(handle, max(0.0, until - time.monotonic())):
        with _one_at_a_time, contextlib.suppress(BlockingIOError):
            if _takes(handle, 0.0):
                data = data[os.write(handle, data[: getattr(select, "PIPE_BUF", AT_ONCE)]) :]
    return len(data)


def reader_gone(stream: TextIO | None) -> bool:
    """Return whether `stream` is a pipe that nobody reads any more."""
    if stream is None or not hasattr(select, "poll"):
        return False
    try:
        poll = select.poll()
        poll.register(stream.fileno(), 0)  # an error is told in any case
        return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
    except (OSError, ValueError):
        return False


def _takes(handle: int, wait_s: float) -> bool:
    """Return whether a write to `handle` ends at once, by writing or by an error; waits for it up to `wait_s`."""
    if not hasattr(select, "poll"):  # no POSIX
        return True
    poll = select.poll()
    poll.register(handle, select.POLLOUT)
    return bool(poll.poll(1e3 * wait_s))


@cache
def say_once(line: str) -> None:
    """Say one line, the first time that this process has it to say."""
    say(line)


def worth_saying(count: int) -> bool:
    """Return whether the `count`-th of equal events is said: 1, 10, 100, ... keep a log of months short."""
    while count >= 10 and count % 10 == 0:
        count //= 10
    return count == 1
