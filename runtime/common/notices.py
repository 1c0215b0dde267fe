"""Lines for whoever looks at the log: what changed, said once and not once a frame."""

import contextlib
import sys
from functools import cache


def say(line: str) -> None:
    """Print one line to stderr; a log that nobody takes any more must not end an inspection."""
    with contextlib.suppress(OSError, ValueError):  # a closed pipe, a closed file
        print(line, file=sys.stderr, flush=True)


@cache
def say_once(line: str) -> None:
    """Print one line to stderr, the first time that this process has it to say."""
    say(line)


def worth_saying(count: int) -> bool:
    """Return whether the `count`-th of equal events is said: 1, 10, 100, ... keep a log of months short."""
    while count >= 10 and count % 10 == 0:
        count //= 10
    return count == 1
