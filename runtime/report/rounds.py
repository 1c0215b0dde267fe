"""Measuring in turn: every model has a go in each round, so that what slows the machine slows all of them alike."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from runtime.common.errors import UserError
from runtime.report.schema import Timing
from runtime.report.worker import StageMs
from runtime.report.workers import Worker

GO_S = 0.15  # a fast model runs several times in its go, for about so long
MOST_IN_A_GO = 5
MOST_ROUNDS = 60
ENOUGH_ROUNDS = 15  # where the time does not allow as many, the slowest models sit rounds out
FEWEST_ROUNDS = 5
LONGEST_REST = 5  # a slow model runs at least in every fifth round
FAILED_S = 1e-3  # of what does not run: no time, but a number to plan with
MS_DIGITS = 4  # of what is reported: a tenth of a microsecond


@dataclass
class Lane:
    """One thing to time, and what its rounds came to: milliseconds by round, and the stages of every run.

    `failed` is why it runs no more, "" while it does.
    """

    worker: Worker
    path: str
    batch: int = 1
    rounds_ms: list[tuple[float, ...]] = field(default_factory=list)
    stages: list[StageMs] = field(default_factory=list)
    failed: str = ""

    def estimate_s(self) -> float:
        """Return the seconds of a run, the better of two after one that does not count."""
        return 1e-3 * min((run[self.path] for run in self._run(2)), default=0.0) or FAILED_S

    def go(self, count: int) -> None:
        """Run `count` times, after a run that does not count: it brings the model's weights into the cache."""
        runs = self._run(count)
        self.rounds_ms.append(tuple(round(run[self.path], MS_DIGITS) for run in runs))
        self.stages += [{stage: ms for stage, ms in run.items() if stage != self.path} for run in runs]

    def _run(self, count: int) -> list[StageMs]:
        """Run, or note why not: minutes of other models' rounds must not go with one that fails."""
        try:
            return [] if self.failed else self.worker.run(self.path, self.batch, warm=1, count=count)
        except UserError as error:
            self.failed = str(error)
            return []

    @property
    def timing(self) -> Timing:
        """What was measured."""
        return Timing(tuple(self.rounds_ms), self.batch)

    def stages_ms(self) -> dict[str, float]:
        """Return each stage's median in milliseconds."""
        names = dict.fromkeys(name for stages in self.stages for name in stages)
        return {
            name: round(float(np.median([stages[name] for stages in self.stages if name in stages])), MS_DIGITS)
            for name in names
        }


@dataclass(frozen=True)
class RoundPlan:
    """How often each lane runs: `counts` times in a go, a go in every `every`-th round, of `rounds`."""

    counts: tuple[int, ...]
    every: tuple[int, ...]
    rounds: int


def plan_rounds(run_s: Sequence[float], seconds: float, most: int = MOST_ROUNDS) -> RoundPlan:
    """Return the plan that keeps lanes whose runs take `run_s` seconds each within about `seconds` in all."""
    counts = tuple(max(1, min(MOST_IN_A_GO, round(GO_S / time_s))) for time_s in run_s)
    goes_s = [time_s * (count + 1) for time_s, count in zip(run_s, counts, strict=True)]
    every = [1] * len(goes_s)
    if sum(goes_s) * ENOUGH_ROUNDS > seconds:
        share_s = seconds / (ENOUGH_ROUNDS * len(goes_s))
        every = [min(LONGEST_REST, max(1, math.ceil(go_s / share_s))) for go_s in goes_s]
    round_s = sum(go_s / rest for go_s, rest in zip(goes_s, every, strict=True))
    return RoundPlan(counts, tuple(every), min(most, max(FEWEST_ROUNDS, int(seconds / round_s))))


def measure_in_turn(lanes: Sequence[Lane], seconds: float, most: int = MOST_ROUNDS) -> None:
    """Let all lanes run in turn for about `seconds`, at most `most` rounds.

    Lanes that have rounds already go on from there: the others are given as many empty ones by whoever adds them. One
    that fails rests from then on, and says why in `failed`.
    """
    if not lanes:
        return
    plan = plan_rounds([lane.estimate_s() for lane in lanes], seconds, most)
    for number in range(plan.rounds):
        for lane, count, every in zip(lanes, plan.counts, plan.every, strict=True):
            if number % every:
                lane.rounds_ms.append(())
            else:
                lane.go(count)
