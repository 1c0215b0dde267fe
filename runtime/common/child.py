"""A module of ours as a process of its own: questions there, answers back, and whatever ends it ends nothing here.

The module's `main` is given the number of an inherited socket, and ends when that does: none stays behind a killed
command.
"""

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from runtime.common.closing import Closing
from runtime.common.interrupts import signals_blocked

ROOT = Path(__file__).resolve().parents[2]  # where Python finds this very package
GOODBYE_S = 2.0


class Gone(Exception):
    """The process has ended, or does not answer; what it was doing is lost."""


class Child(Closing):
    """`module`, run in `folder` with `environment` beside ours. One thread at a time asks; Ctrl-C does not reach it."""

    def __init__(self, module: str, folder: Path | None = ROOT, environment: Mapping[str, str] | None = None) -> None:
        ours, theirs = socket.socketpair()
        self._link: Connection[Any, Any] = Connection(ours.detach())
        with theirs, signals_blocked():
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, str(theirs.fileno())],
                cwd=folder,
                env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
            )

    def ask(self, message: Any, within_s: float, body: memoryview | None = None) -> Any:
        """Return the answer to a message, behind which `body` is sent as it lies in memory. Raises `Gone`."""
        try:
            self._link.send(message)
            if body is not None:
                self._link.send_bytes(body)
            if not self._link.poll(within_s):
                raise Gone(f"no answer within {within_s:g} s")
            return self._link.recv()
        except (EOFError, OSError):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(GOODBYE_S)
            raise Gone(f"its process ended with status {self._process.returncode}") from None

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether it has ended, by itself or by others, while nobody asked."""
        return self._process.poll() is not None

    def interrupt(self) -> None:
        """End it at once; any thread may call this, and the one that waits for an answer gets `Gone`."""
        self._process.kill()

    def wait(self) -> None:
        """Wait for its end, which `interrupt` brings about."""
        self._process.wait()

    def close(self, patience_s: float = GOODBYE_S) -> None:
        """End the process, which has so long to go by itself; a second call does nothing."""
        with contextlib.suppress(OSError):
            self._link.close()
        try:
            self._process.wait(patience_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
