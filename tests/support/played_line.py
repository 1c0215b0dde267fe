"""A line as `runtime.infer` opens it, whose camera is played: its frames say when they were taken, and so goes time."""

import argparse
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime.infer import build_parser
from runtime.line import Line, open_line
from runtime.records.read import Query, judgements
from runtime.serve.server import Server
from runtime.sinks.judgement import Judgement
from runtime.sources import arguments as source_arguments
from runtime.sources.frame import Frame, Source
from tests.support.controlled_source import ControlledSource
from tests.support.serve_rig import Answer, Rig, until
from tests.support.waiting import wait_until

ASKED = {"X_Requested_By": "cflow-edge"}
HOUR_S = 3600.0
GOOD, BAD = "good", "bad"  # what a part is: begins the names of its frames
TOGETHER = 6  # frames after which everything behind the inspection is waited for: fewer than any queue holds


class Calendar:
    """The clock on the wall, set to another day; it goes on from there as clocks do."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.set(0.0)
        patch.setattr("time.time", self.now_s)

    def set(self, at_s: float) -> None:
        """Set it, in seconds since 1970."""
        self._at_s, self._set_s = at_s, time.monotonic()

    def now_s(self) -> float:
        """Return what it shows."""
        return self._at_s + time.monotonic() - self._set_s


def day(month: int, of_month: int) -> float:
    """Return the begin of a day of the year that is played."""
    return datetime(2027, month, of_month, tzinfo=timezone.utc).timestamp()


@dataclass(frozen=True)
class Part:
    """What comes before the camera, `GOOD` or `BAD`."""

    kind: str
    image: np.ndarray


class PlayedCamera(ControlledSource):
    """Gives the frames that are put, one each `apart_s` seconds by the `calendar`, from `at_s` on."""

    def __init__(self, calendar: Calendar, at_s: float, apart_s: float) -> None:
        super().__init__("line", True)
        self.state = "live"
        self._calendar = calendar
        self.at_s, self.apart_s = at_s, apart_s

    def __iter__(self) -> Iterator[Frame]:
        index = 0
        while (part := self.items.get()) is not None and not self.closed:
            self.at_s += self.apart_s
            self._calendar.set(self.at_s)
            yield Frame(part.image, f"{part.kind}_{index:06d}", index, self.at_s, monotonic_s=self.at_s)
            index += 1


@dataclass(frozen=True)
class Seen:
    """A part that was judged: its frame's name, what it is, what it was called, and by the engine of which hash."""

    name: str
    kind: str
    verdict: str
    engine_sha256: str

    @property
    def false_alarm(self) -> bool:
        """Whether a good part was called anomalous."""
        return self.kind == GOOD and self.verdict == "anomalous"


class Kept:
    """Keeps what was judged, without the pictures."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []

    def offer(self, judgement: Judgement) -> None:
        name = judgement.frame.name
        self.seen.append(Seen(name, name.partition("_")[0], judgement.result.verdict, judgement.engine_sha256))


@dataclass
class PlayedLine:
    """A line that runs, its page and its log."""

    line: Line
    camera: PlayedCamera
    kept: Kept
    page: Rig
    log: Path

    def play(self, parts: Sequence[Part]) -> list[Seen]:
        """Let parts go by, wait until all were judged, measured, compared and written; return what became of them."""
        first = len(self.kept.seen)
        for number, part in enumerate(parts, 1):
            self.camera.put(part)  # of a camera only the newest frame waits
            wait_until(lambda done=first + number: len(self.kept.seen) >= done)
            if number % TOGETHER == 0:
                self._settle()
        self._settle()
        wait_until(lambda: not any(counts.queued for counts in self.line.outputs.deliveries.counts()))
        return self.kept.seen[first:]

    def _settle(self) -> None:
        assert self.line.drift is not None
        self.line.drift.settle()
        assert self.line.shadow is None or self.line.shadow.shadow.wait(120.0)

    def state(self, true: Callable[[dict[str, Any]], object] = bool) -> dict[str, Any]:
        """Return what the page shows, once `true` of it: a report is shared for half a second."""
        found: dict[str, Any] = until(lambda: (state := self.page.state()) and true(state) and state)
        return found

    def ask(self, action: str, **body: Any) -> Answer:
        """Do what a click on the page does."""
        return self.page.ask(f"/api/{action}", "POST", body, **ASKED)

    def records(self, since_s: float = 0.0) -> list[dict[str, Any]]:
        """Return the judgements in the log, the oldest first."""
        return list(judgements(self.log, Query(since_s=since_s), newest_first=False))


@contextmanager
def played(calendar: Calendar, log: Path, engine: Path, at_s: float, *words: str) -> Iterator[PlayedLine]:
    """Open a line as `runtime.infer` does, at a moment of the calendar; `words` are more of its command line."""
    camera, kept = PlayedCamera(calendar, at_s, HOUR_S), Kept()
    calendar.set(at_s)
    given = ["--engine", engine, "--log", log, "--camera", "0", "--name", camera.name, "--serve", "127.0.0.1:0"]
    fixed = ["--threads", "1", "--backend", "onnxruntime", "--frozen-after", "0"]
    args = build_parser().parse_args([*map(str, given), *fixed, *words])
    with ExitStack() as stack:
        line = _opened(args, camera, stack)
        line.inspection.add(kept)
        [server] = [one for one in line.inspection._outgoing.receivers if isinstance(one, Server)]
        page = Rig(server, line.inspection.recipes.in_force.first.detector, engine)
        thread = threading.Thread(target=line.inspection.run, args=(line.look,))
        thread.start()
        try:
            yield PlayedLine(line, camera, kept, page, log)
        finally:
            camera.close()
            thread.join(120)
            assert line.close_and_tell()


def _opened(args: argparse.Namespace, camera: Source, stack: ExitStack) -> Line:
    """Open the line with the camera that is played in the place of the one that would be plugged in."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source_arguments, "sources_from", lambda *_: [camera])
        return open_line(args, stack)
