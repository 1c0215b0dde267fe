"""A worker's side of a process that judges (`runtime.archive.child`): one that dies is begun anew, and loses nothing.

The same on this machine and on a cluster's: what a picture does to its process stays between the two.
"""

import os
import socket
import threading
from collections.abc import Sequence
from dataclasses import replace

from runtime.archive.items import Item, Part
from runtime.archive.judging import Row, unjudged
from runtime.archive.setup import Identity, Setup
from runtime.common.child import ROOT, Child, Gone
from runtime.common.closing import Closing
from runtime.common.errors import UserError

OPEN_S = 600.0  # that an engine may take to be opened
IMAGE_S = 120.0  # that an image may take, with all waits for a network
OPENINGS = 3  # that are tried, where the process ends before it has opened the engine
DEATHS = 2  # of its process, with an image alone: then that one has no verdict
DEATHS_IN_A_ROW = 12  # with no image judged between: then it is not the images


class Stopped(Exception):
    """The keeper was closed by another thread."""


class Keeper(Closing):
    """Judges parts by `setup` in a process of its own, which begins with the first one. One thread at a time asks."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._child: _Child | None = None
        self._deaths = 0  # in a row
        self._closed = False
        self._lock = threading.Lock()  # of what another thread may end

    def identity(self) -> Identity:
        """Return by what it judges. Raises `UserError` where the engine cannot be opened here."""
        return self._opened().identity

    def judge(self, part: Part) -> list[Row]:
        """Return the rows of a part's images, in order.

        Where its process ends, the images are given one by one to new ones; one whose process ends each time has no
        verdict. Raises `UserError` where the engine cannot be opened, or is another than it should be.
        """
        rows = self._tried(part.items)
        if rows is None:
            rows = [row for item in part.items for row in self._alone(item)]
        return rows

    def _alone(self, item: Item) -> list[Row]:
        for _ in range(DEATHS):
            if (rows := self._tried([item])) is not None:
                return rows
        return [unjudged(item, f"{item.name}: the process that judged it ended, {DEATHS} times")]

    def _tried(self, items: Sequence[Item]) -> list[Row] | None:
        """Return the rows of `items`; None where the process ended."""
        child = self._opened()
        try:
            rows: list[Row] = child.ask(list(items), IMAGE_S * (len(items) + 1))
        except Gone as gone:
            self._discard()
            self._deaths += 1
            if self._deaths >= DEATHS_IN_A_ROW:
                cure = "look at the machine's memory, or try another --backend"
                raise UserError("judging must not end its process", f"{gone}, {DEATHS_IN_A_ROW} times", cure) from None
            return None
        self._deaths = 0
        return rows

    def _opened(self) -> "_Child":
        """Return the process, begun and open. Raises `UserError` where it cannot be opened."""
        for _ in range(OPENINGS):
            child = self._begun()
            try:
                if not child.opened:
                    child.open(self._setup)
                return child
            except Gone as gone:
                why = str(gone)
                self._discard()
            except BaseException:
                self._discard()
                raise
        raise UserError(f"{self._setup.engine} must open in a process of its own", f"{why}, {OPENINGS} times")

    def _begun(self) -> "_Child":
        with self._lock:
            if self._closed:
                raise Stopped
            if self._child is not None and self._child.ended:
                self._child.close(0)
                self._child = None
            if self._child is None:
                self._child = _Child()
            return self._child

    def _discard(self) -> None:
        with self._lock:
            child, self._child = self._child, None
            closed = self._closed
        if child is not None:
            child.close(0)
        if closed:
            raise Stopped

    def close(self) -> None:
        """End the process, also from another thread: the one that waits for it gets `Stopped`."""
        with self._lock:
            self._closed = True
            if self._child is not None:
                self._child.interrupt()
                self._child.wait()


class _Child(Child):
    """The process, with one thread of computing. It is in this one's folder, for a URL may name a file from there."""

    def __init__(self) -> None:
        paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))
        threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        super().__init__("runtime.archive.child", None, {"PYTHONPATH": paths, **threads})
        self.opened = False
        self.identity = Identity("{}")

    def open(self, setup: Setup) -> None:
        """Open the engine. Raises `UserError` where that fails, or where it is another than it should be; `Gone`."""
        said = self.ask(replace(setup, expected=None), OPEN_S)
        if "error" in said:
            raise UserError(said["error"])
        self.identity = said["identity"]
        if setup.expected is not None and (difference := setup.expected.differs(self.identity)):
            what, ours, theirs = difference
            cure = "give every machine the same files and libraries"
            raise UserError(
                f"every worker must judge alike: {what} {ours}", f"{theirs} on {socket.gethostname()}", cure
            )
        self.opened = True
