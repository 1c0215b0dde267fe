"""What a comparison has come to: counted, written into the log, and held against what people marked."""

import threading
import time
from collections.abc import Mapping
from typing import Any

from runtime.common.errors import UserError
from runtime.common.notices import say_once
from runtime.records.log import Log
from runtime.records.marks import newest_mark, standing
from runtime.records.shadow_reading import Marked, marked, said_of
from runtime.records.shadows import PAIRS, Comparison, Counts, counts_of
from runtime.shadow.disagreements import Disagreements
from runtime.shadow.standing import figures, reasons
from runtime.sinks.judgement import Judgement

WRITE_S = 1.0
LOOK_S = 5.0  # for marks
ROWS = 2000  # that wait to be written; the oldest go where the log takes none


class Ledger:
    """The comparison that goes on, in `log` where there is one. Any thread may call."""

    def __init__(self, log: Log | None) -> None:
        self._log = log
        self._lock, self._writing = threading.Lock(), threading.Lock()
        self.disagreements = Disagreements(None if log is None else log.path)
        self.of: Comparison | None = None
        self._counts = self._written = Counts()
        self._rows: list[Mapping[str, Any]] = []
        self._wrote_s = self._looked_s = float("-inf")
        self._marked, self._mark = Marked.nothing(), -1
        self._said: dict[int, dict[str, Any]] = {}  # of marked judgements, by number: what was said does not change

    @property
    def counts(self) -> Counts:
        """Return what became of the frames so far."""
        with self._lock:
            return self._counts

    def begin(self, of: Comparison) -> None:
        """Go on with another comparison, from where the log has it."""
        if self.of is not None:
            self.write()
        known = Counts()
        if self._log is not None:
            try:
                known = counts_of(self._log.path, of)
            except (OSError, UserError) as error:
                say_once(f"shadow: what was compared before is not known: {error}")
        with self._lock:
            self.of, self._counts, self._written, self._rows = of, known, known, []
        self.disagreements.begin(of)
        self.look()

    def add(self, **more: int) -> None:
        """Count frames, by the names of `Counts`."""
        with self._lock:
            self._counts = self._counts.plus(**more)

    def enter(self, judgement: Judgement, said: Mapping[str, Any], apart: bool) -> int:
        """Enter what the candidate said of a judgement; return the number of its picture on the page, 0 without."""
        frame, verdict = judgement.frame, judgement.result.verdict
        differ, event, new = verdict != said["verdict"], 0, False
        more = {PAIRS[verdict, said["verdict"]]: 1}
        if differ:
            so_far = self.counts.running_events + self.counts.candidate_events
            event, new = self.disagreements.event(judgement.source, verdict, frame.captured_s, apart, so_far)
            if new:
                more["running_events" if verdict == "anomalous" else "candidate_events"] = 1
        row: dict[str, Any] = {
            "frame": frame.index,
            "source": judgement.source,
            "run": judgement.run,
            "captured_s": frame.captured_s,
            "verdict": verdict,
            "candidate": said["verdict"],
            "score": judgement.result.score,
            "candidate_score": said["score"],
            "event": event,
            "name": frame.name,
            "picture": "",
        }
        number = 0
        if new and said["picture"]:
            try:
                number, row["picture"] = self.disagreements.keep(row, said["picture"])
            except OSError as error:
                say_once(f"shadow: a picture could not be kept: {error}")
        with self._lock:
            self._counts = self._counts.plus(**more)
            if self._log is not None:
                self._rows = [*self._rows, row][-ROWS:]
        return number

    def write_when_due(self) -> None:
        """Write what is new, once a second, and look for marks now and then."""
        now_s = time.monotonic()
        if now_s - self._wrote_s >= WRITE_S:
            self.write()
        if now_s - self._looked_s >= LOOK_S:
            self.look()

    def write(self) -> None:
        """Write what is new into the log; what cannot be written waits for the next time."""
        with self._writing:  # two would each take what they wrote off what waits
            self._write()

    def _write(self) -> None:
        self._wrote_s = time.monotonic()
        with self._lock:
            of, counts, rows = self.of, self._counts, list(self._rows)
        if self._log is None or of is None or (counts == self._written and not rows):
            return
        try:
            self._log.shadow(of, counts, rows)
        except (OSError, UserError) as error:
            say_once(f"shadow: the log takes nothing now (what was compared waits, the inspection goes on): {error}")
            return
        with self._lock:
            self._written = counts
            self._rows = self._rows[len(rows) :]

    def look(self, anew: bool = False) -> None:
        """See what people marked; `anew` even if nobody marked anything since."""
        self._looked_s = time.monotonic()
        if self._log is None or self.of is None:
            return
        try:
            newest = newest_mark(self._log.path)
            if newest == self._mark and not self._marked.unknown and not anew:
                return
            marks = {n: mark for n, mark in standing(self._log.path).items() if self._mine(mark)}
            left = {number: mark for number, mark in marks.items() if number not in self._said}
            self._said |= said_of(self._log.path, left)
        except (OSError, UserError) as error:
            say_once(f"shadow: what people marked is not known: {error}")
            return
        found = marked(marks, self._said, self.of)
        with self._lock:
            self._marked, self._mark = found, newest

    def _mine(self, mark: Mapping[str, Any]) -> bool:
        assert self.of is not None
        return bool(mark["about"].get("recipe", "") == self.of.recipe)

    def reasons(self, trouble: str) -> list[str]:
        """Return why the candidate is not to judge."""
        return reasons(*self._known(), trouble)

    def figures(self) -> dict[str, Any]:
        """Return what the page shows, as JSON has it."""
        return figures(*self._known())

    def _known(self) -> tuple[Counts, Marked]:
        with self._lock:
            return self._counts, self._marked
