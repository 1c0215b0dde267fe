"""What a controller is told of one source: a verdict with everything that belongs to it, as one value."""

import enum
import time
from dataclasses import dataclass, field, replace

from runtime.result import Verdict
from runtime.sinks.judgement import Judgement
from runtime.triggers.trigger import Trigger

VERDICT_CODES: dict[Verdict, int] = {"none": 0, "good": 1, "anomalous": 2}
UNDECIDED = "the last frames do not decide it"
WRAP = 1 << 32  # counters are unsigned, of 32 bits, and begin anew at 0


class Why(enum.IntEnum):
    """Why there is no verdict, as a number that a controller can compare."""

    VERDICT = 0  # there is one
    NOT_TRUSTED = 1  # the inspection itself says so, in words
    LATE = 2
    NOTHING_YET = 3
    STOPPED = 4
    SOURCE_LOST = 5
    CONTROLLER_LOST = 6
    OLD = 7


# in words; of the first three the judgement has its own
WORDS = {
    Why.NOTHING_YET: "nothing was judged yet",
    Why.STOPPED: "the inspection does not run",
    Why.SOURCE_LOST: "the source is lost",
    Why.CONTROLLER_LOST: "the controller's heartbeat stands still",
    Why.OLD: "the verdict is too old",
}


@dataclass(frozen=True)
class Totals:
    """How many answers a source has had; `late` ones are among those without a verdict."""

    total: int = 0
    good: int = 0
    anomalous: int = 0
    none: int = 0
    late: int = 0

    def plus(self, verdict: Verdict, late: bool) -> "Totals":
        """Return the counts after one answer more."""
        return Totals(
            (self.total + 1) % WRAP,
            (self.good + (verdict == "good")) % WRAP,
            (self.anomalous + (verdict == "anomalous")) % WRAP,
            (self.none + (verdict == "none")) % WRAP,
            (self.late + late) % WRAP,
        )


@dataclass(frozen=True)
class Answer:
    """The newest answer of a source; never changed, only replaced, so that no reader sees half of one.

    Its verdict is the line's decision where several frames decide (`--decide`), else the frame's.

    `sequence` is 0 before the first answer and grows by 1 with each. `part` is empty where nothing asked. `score` is
    None where the engine gave no number. `recipe` and `engine_sha256` are of what judged. `answered_s` is in seconds
    since 1970, `judged_s` of the monotonic clock.
    """

    sequence: int = 0
    verdict: Verdict = "none"
    why: Why = Why.NOTHING_YET
    reason: str = WORDS[Why.NOTHING_YET]
    score: float | None = None
    threshold: float = 0.0
    part: str = ""
    answered_s: float = 0.0
    judged_s: float = field(default_factory=time.monotonic)
    totals: Totals = Totals()
    trigger: Trigger | None = None
    recipe: str = ""
    engine_sha256: str = ""

    @property
    def code(self) -> int:
        """The verdict as a number."""
        return VERDICT_CODES[self.verdict]

    @property
    def late(self) -> bool:
        """Whether the part was not answered in time."""
        return self.why == Why.LATE

    def withdrawn(self, why: Why) -> "Answer":
        """Return the same answer without its verdict; one that has none keeps its reason."""
        return replace(self, verdict="none", why=why, reason=WORDS[why]) if self.verdict != "none" else self

    def next(self, judgement: Judgement) -> "Answer":
        """Return the answer that follows this one."""
        result, trigger, late = judgement.result, judgement.trigger, judgement.late
        verdict = result.verdict if judgement.decision is None else judgement.decision
        why = Why.VERDICT if verdict != "none" else Why.LATE if late else Why.NOT_TRUSTED
        return Answer(
            (self.sequence + 1) % WRAP,
            verdict,
            why,
            "" if why == Why.VERDICT else result.reason or UNDECIDED,
            result.score,
            result.threshold,
            "" if trigger is None else trigger.part,
            time.time(),
            judgement.judged_s,
            self.totals.plus(verdict, late),
            trigger,
            judgement.recipe,
            judgement.engine_sha256,
        )
