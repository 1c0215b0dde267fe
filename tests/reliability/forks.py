"""Commands as processes that have their imports behind them: forked off this one, they begin with the real work.

So that a kill at a random moment meets training, building and writing, and not the seconds in which torch is imported.
This process must stay without threads of its own.
"""

import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from runtime.common.errors import run_command

Main = Callable[[Sequence[str] | None], int | None]
PATIENCE_S = 120.0
AT_THE_START_S = 0.05  # in which a process may not have begun to answer for signals


def start(work: Callable[[], int], log: Path) -> int:
    """Let a forked process do `work` and end with the status that it returns; its words go to `log`. Returns its id."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    status = 99
    try:
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        open_streams()
        status = work()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def open_streams() -> None:
    """Let stdout and stderr be what their numbers stand for by now, as in a process that has just begun."""
    sys.stdout, sys.stderr = (os.fdopen(number, "w", 1, encoding="utf-8", closefd=False) for number in (1, 2))


def ended(pid: int, within_s: float) -> int | None:
    """Return how process `pid` ended (the status, or minus a signal's number), None where it still runs."""
    until = time.monotonic() + within_s
    while True:
        found, code = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(code)
        if time.monotonic() >= until:
            return None
        time.sleep(0.005)


def finish(pid: int, within_s: float = PATIENCE_S) -> int:
    """Return how `pid` ended; one that goes on for longer is killed, and -9."""
    status = ended(pid, within_s)
    if status is not None:
        return status
    os.kill(pid, signal.SIGKILL)
    ended(pid, PATIENCE_S)
    return -signal.SIGKILL


def run(main: Main, words: Sequence[object], log: Path, within_s: float = PATIENCE_S) -> int:
    """Run a command to its end and return its status."""
    return finish(start(lambda: run_command(main, [str(word) for word in words]), log), within_s)


def killed(main: Main, words: Sequence[object], log: Path, delay_s: float, number: int) -> int:
    """Run a command, send it signal `number` after `delay_s` seconds, and return how it ended."""
    pid = start(lambda: run_command(main, [str(word) for word in words]), log)
    status = ended(pid, delay_s)
    if status is None:
        os.kill(pid, number)
        status = finish(pid)
    return status


def holds(check: Callable[[], None], log: Path) -> bool:
    """Return whether `check` raises nothing, in a process of its own: it may start threads."""

    def work() -> int:
        check()
        return 0

    return finish(start(work, log)) == 0


def moments(rng: random.Random, whole_s: float) -> float:
    """Return a moment within a run of `whole_s` seconds, and a little beyond."""
    return rng.uniform(0, 1.05 * whole_s)


def last_line(log: Path) -> str:
    """Return the last line that was said."""
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if log.exists() else []
    return lines[-1] if lines else ""
