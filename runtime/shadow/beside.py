"""A candidate beside the line: it is offered every judgement, and what it would have said is compared and kept.

inspection ─ offer ▶ queue (bounded; the line never waits) ─▶ thread ─▶ process of the candidate ─▶ counts, log, page
"""

import json
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict
from typing import Any

from runtime.common.closing import Closing
from runtime.common.errors import UserError
from runtime.common.files import printable
from runtime.common.notices import say, worth_saying
from runtime.recipes.book import Recipes
from runtime.records.log import Log
from runtime.records.shadows import Comparison
from runtime.shadow.candidate import Candidate
from runtime.shadow.keeper import Keeper
from runtime.shadow.ledger import Ledger
from runtime.sinks.judgement import Judgement

QUEUED = 8  # frames
QUEUED_BYTES = 64 << 20
TICK_S = 0.5
REST = 9.0  # times as long as a camera's frame took its candidate, it rests: a tenth of a core is what it takes
LAST_S = 10.0  # that frames in the queue get at the end


class Shadow(Closing):
    """Compares `candidate` with what judges by the recipe of that name; frames under another recipe are not looked at.

    `live` names the sources whose frames follow each other as a camera's do; of these it takes as many as fit a tenth
    of a core. `load` are options of `runtime.load`.
    Raises `UserError` where the candidate cannot be opened. `offer` takes microseconds and raises nothing.
    """

    def __init__(
        self,
        candidate: Candidate,
        recipe: str,
        recipes: Recipes,
        load: Mapping[str, Any],
        log: Log | None = None,
        live: Collection[str] = (),
    ) -> None:
        self.recipe, self.candidate, self._recipes = recipe, candidate, recipes
        self._live = frozenset(live)
        self.shown: Callable[[int, Judgement], None] = lambda number, judgement: None
        self.trouble = ""  # why it does not judge now
        self._run, self._swapped = "", False  # the only run that is looked at; empty: any
        self._changed = threading.Condition()
        self._queue: deque[Judgement] = deque()
        self._bytes, self._closing, self._looking = 0, False, False
        self._rest_s = 0.0  # before the next frame
        self._told: Counter[str] = Counter()
        self._keeper = Keeper(candidate, load)
        self.ledger = Ledger(log)
        self._begin(candidate)
        self._thread = threading.Thread(target=self._work, name="shadow", daemon=True)
        self._thread.start()

    def offer(self, judgement: Judgement) -> None:
        """Take one judgement, or count it where the candidate is too slow for it; never waits."""
        if judgement.recipe != self.recipe or (self._run and judgement.run != self._run):
            return
        if judgement.result.verdict == "none":
            self.ledger.add(unjudged=1)
            return
        if judgement.has_large_map and judgement.result.verdict != "anomalous":
            judgement = judgement.without_map()  # which only a picture of an anomaly needs
        with self._changed:
            full = len(self._queue) >= QUEUED or self._bytes + judgement.nbytes > QUEUED_BYTES
            taken = not self._closing and not (full and self._queue)
            if taken:
                self._queue.append(judgement)
                self._bytes += judgement.nbytes
                self._changed.notify()
        if not taken:
            self._skip(1)

    def swap(self, candidate: Candidate, run: str) -> None:
        """Compare `candidate` from now on, with what judges in the run `run`; its process is opened by our thread."""
        with self._changed:
            self._run, self.candidate, self._swapped = run, candidate, True
            self.ledger.add(skipped=len(self._queue))  # of the one before
            self._queue.clear()
            self._bytes = 0
            self._changed.notify()
        self._keeper.interrupt()  # it may hang, and is not needed any more

    def reasons(self) -> list[str]:
        """Return why the candidate is not to judge, by all that is known now; nothing where all speaks for it."""
        self.ledger.write()
        self.ledger.look(anew=True)
        return self.ledger.reasons(self.trouble)

    def report(self) -> dict[str, Any]:
        """Return what the page shows, as JSON has it."""
        ledger, of = self.ledger, self.ledger.of
        assert of is not None
        limits = json.loads(of.limits)
        shown = [
            {
                "picture": one.number,
                "markable": one.markable,
                "time": one.row["captured_s"],
                **{name: one.row[name] for name in ("source", "name", "verdict", "score", "candidate_score")},
            }
            for one in ledger.disagreements.newest()
        ]
        return {
            **{name: getattr(of, name) for name in ("recipe", "running", "candidate", "candidate_sha256")},
            "threshold": limits[0],
            "candidate_threshold": limits[2],
            "trouble": self.trouble,
            "counts": asdict(ledger.counts),
            **ledger.figures(),
            "against": ledger.reasons(self.trouble),
            "disagreements": shown,
        }

    def text(self) -> str:
        """Return a line for the summary."""
        counts, of = self.ledger.counts, self.ledger.of
        assert of is not None
        return (
            f"shadow: {of.candidate} beside {of.running}: {counts.compared} compared, {counts.running_only} anomalous "
            f"by {of.running} only, {counts.candidate_only} by {of.candidate} only; {counts.skipped} skipped, "
            f"{counts.failed + counts.candidate_none} without a verdict of {of.candidate}"
        )

    def wait(self, within_s: float = LAST_S) -> bool:
        """Wait until no frame waits or is looked at; return whether that is so within `within_s` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: not (self._queue or self._looking), within_s)

    def close(self) -> None:
        """Judge what waits, for a little while, write everything and end the process; a second call does nothing."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(LAST_S)
        if self._thread.is_alive():
            self._keeper.interrupt()
            self._thread.join(LAST_S)

    def _work(self) -> None:
        while True:
            judgement = self._next()
            try:
                self._do(judgement)
            except Exception as error:  # a defect of ours is said, and the next frame may go well
                self._fail("defect", f"{type(error).__name__}: {error}")
            with self._changed:
                self._looking = False
                self._changed.notify_all()
            if judgement is None and self._closing:
                break
        self.ledger.write()
        self._keeper.close()

    def _do(self, judgement: Judgement | None) -> None:
        if self._swapped:
            self.ledger.add(skipped=int(judgement is not None))
            self._open_other()
        elif judgement is not None:
            self._look_at(judgement)
        self.ledger.write_when_due()

    def _next(self) -> Judgement | None:
        with self._changed:
            self._changed.wait_for(lambda: self._closing or self._swapped, self._rest_s)
            self._rest_s = 0.0
            self._changed.wait_for(lambda: self._queue or self._closing or self._swapped, TICK_S)
            if not self._queue:
                return None
            judgement = self._queue.popleft()
            self._bytes -= judgement.nbytes
            self._looking = True
            return judgement

    def _open_other(self) -> None:
        """Have the process of the candidate that takes the place of the last one."""
        with self._changed:
            candidate, self._swapped = self.candidate, False
        self._begin(candidate)
        self.trouble = ""
        try:
            self._keeper.replace(candidate)
        except (UserError, OSError) as error:
            self._fail("open", str(error))

    def _begin(self, candidate: Candidate, judgement: Judgement | None = None) -> None:
        """Go on with the comparison that `judgement` is of, or that the next one will be of."""
        recipe = self._recipes[self.recipe]
        sha256, limits = recipe.engine_sha256, recipe.limits
        if judgement is not None:
            sha256 = judgement.engine_sha256
            limits = (judgement.result.threshold, judgement.result.map_threshold)
        judges = printable(recipe.engine), sha256
        other = printable(candidate.name), candidate.sha256
        own = [candidate.masks_sha256] if candidate.views else []
        of = Comparison(self.recipe, *judges, *other, json.dumps([*limits, *candidate.limits, *own]))
        if of != self.ledger.of:
            self.ledger.begin(of)

    def _look_at(self, judgement: Judgement) -> None:
        with self._changed:
            candidate, swapped = self.candidate, self._swapped
        if not swapped:
            self._begin(candidate, judgement)
        began_s = time.monotonic()
        said = {} if swapped else self._keeper.judge(judgement)
        self._rest_s = REST * (time.monotonic() - began_s) if judgement.source in self._live else 0.0
        if self._swapped:  # what was under way is of the one before
            self.ledger.add(skipped=1)
            return
        if "error" in said:
            self.ledger.add(failed=1)
            if said["error"]:
                self._fail("failed", said["error"])
        elif said["verdict"] == "none":
            self.trouble = ""
            self.ledger.add(candidate_none=1)
            self._tell("none", f"gives no verdict: {said['reason']} (counted)")
        else:
            self.trouble = ""
            apart = judgement.trigger is not None or judgement.source not in self._live
            if number := self.ledger.enter(judgement, said, apart):
                self.shown(number, judgement)

    def _fail(self, kind: str, text: str) -> None:
        self.trouble = text
        self._tell(kind, f"{text} (counted, the inspection goes on)")

    def _skip(self, count: int) -> None:
        self.ledger.add(skipped=count)
        self._tell(
            "slow", "cannot keep up, or rests to slow no verdict; frames are skipped (counted, the line does not wait)"
        )

    def _tell(self, kind: str, text: str) -> None:
        """Say the first of a kind, the 10th, the 100th and so on."""
        self._told[kind] += 1
        if worth_saying(self._told[kind]):
            say(f"shadow: {self.candidate.path.name}: {text}")
