"""A candidate's process as the inspection sees it: one frame there, one answer back, and all may go wrong."""

import contextlib
import socket
import subprocess
import sys
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from runtime.common.closing import Closing
from runtime.common.errors import UserError
from runtime.common.interrupts import signals_blocked
from runtime.images.pixels import Image8
from runtime.shadow.candidate import Candidate

OPEN_S = 600.0  # that an engine may take to be opened, a plan of a large one on a busy machine too
ANSWER_S = 60.0  # that a frame may take where nearly nothing is left of the machine
GOODBYE_S = 2.0


class Gone(Exception):
    """The process has ended, or does not answer; what it was doing is lost."""


class Process(Closing):
    """`candidate`, judging in a process of its own; `load` are the options of `runtime.load` but the threads.

    `gently`: it is opened at the lowest priority too, for a line judges meanwhile. Raises `UserError` where it cannot
    be opened. One thread calls everything.
    """

    def __init__(self, candidate: Candidate, load: Mapping[str, Any], gently: bool) -> None:
        ours, theirs = socket.socketpair()
        self._link: Connection[Any, Any] = Connection(ours.detach())
        with theirs, signals_blocked():
            self._process = subprocess.Popen(
                [sys.executable, "-m", "runtime.shadow.worker", str(theirs.fileno())],
                cwd=Path(__file__).resolve().parents[2],  # where Python finds this very package
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
            )
        asked = {
            "engine": candidate.path.absolute() if isinstance(candidate.path, Path) else candidate.path,
            "sha256": candidate.sha256,
            "limits": candidate.limits,
            "load": dict(load),
            "gently": gently,
        }
        try:
            said = self._ask(asked, OPEN_S)
            if "error" in said:
                raise UserError(f"{candidate.path.name}: {said['error']}")
            self.map_size: tuple[int, int] = said["map_size"]
            self.device: str = said["device"]
        except Gone as error:
            self.close()
            raise UserError(f"{candidate.path.name} must open in a process of its own", str(error)) from None
        except BaseException:
            self.close()
            raise

    def judge(self, task: Mapping[str, Any], image: Image8) -> dict[str, Any]:
        """Return what the candidate says of a frame: "error", or a verdict. Raises `Gone`; then it is to be closed.

        The image is sent as it lies in memory: to copy it would keep the inspection from Python's lock.
        """
        whole = np.ascontiguousarray(image)
        return self._ask({**task, "shape": whole.shape}, ANSWER_S, whole.data.cast("B"))

    def _ask(self, message: Mapping[str, Any], within_s: float, body: memoryview | None = None) -> dict[str, Any]:
        try:
            self._link.send(message)
            if body is not None:
                self._link.send_bytes(body)
            if not self._link.poll(within_s):
                raise Gone(f"no answer within {within_s:g} s")
            said: dict[str, Any] = self._link.recv()
            return said
        except (EOFError, OSError):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(GOODBYE_S)
            raise Gone(f"its process ended with status {self._process.returncode}") from None

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    def interrupt(self) -> None:
        """End it at once; any thread may call this, and the one that waits for an answer gets `Gone`."""
        self._process.kill()

    def close(self) -> None:
        """End the process; a second call does nothing."""
        with contextlib.suppress(OSError):
            self._link.close()
        try:
            self._process.wait(GOODBYE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
