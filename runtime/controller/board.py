"""The newest answers, and when they are to be trusted: the safe state of a server that a controller reads."""

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from runtime.controller.answer import WRAP, Answer, Why
from runtime.sinks.judgement import Judgement

BEAT_S = 0.5  # the heartbeat goes up this often while the inspection runs
LOOK_S = 0.1  # how often the sources are asked, however many controllers read


class SourceLike(Protocol):
    """What is asked of a source: `state` is "live" or "file" while it delivers."""

    @property
    def name(self) -> str:
        """Its name, as judgements have it."""
        ...

    @property
    def live(self) -> bool:
        """Whether it is a camera or a stream."""
        ...

    @property
    def state(self) -> str:
        """What it does."""
        ...


@dataclass(frozen=True)
class Limits:
    """When a verdict falls to "none", in seconds.

    After `safe_after_s` in which the inspection, or a controller that gives a heartbeat, stood still; and once the
    verdict is older than `valid_s`.
    """

    safe_after_s: float = 2.0
    valid_s: float = 10.0


class Board:
    """Holds the newest answer of every one of `sources`, in their order, for one server.

    A verdict that fell to "none" stays so until the next answer. Any thread may call anything; `beat` is the
    inspection's, and waits for nobody.
    """

    def __init__(
        self, sources: Sequence[str], limits: Limits | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.sources = tuple(sources)
        self.heartbeat = 0
        self.drifts: tuple[str, ...] = ()  # the drift alarms that stand, in words
        self.controller_beat: int | None = None  # what the controller last gave, None before the first
        self._limits = limits or Limits()
        self._clock = clock
        self._places = {name: place for place, name in enumerate(self.sources)}
        self._answers = [Answer() for _ in self.sources]
        self._states: Callable[[], Sequence[SourceLike]] = tuple
        self._changing = threading.Lock()
        self._beat_s = self._judged_s = -math.inf
        self._counted_s = 0.0
        self._controller_s = 0.0
        self._lost: frozenset[str] = frozenset()
        self._looked_s = -LOOK_S
        self._closed = False

    def watch(self, states: Callable[[], Sequence[SourceLike]]) -> None:
        """Ask `states` from now on which sources deliver."""
        self._states = states

    def drift(self, alarms: Sequence[Mapping[str, Any]]) -> None:
        """Show these drift alarms from now on."""
        self.drifts = tuple(alarm["text"] for alarm in alarms)

    def beat(self) -> None:
        """Say that the inspection has come round again; the heartbeat goes up every `BEAT_S` at most."""
        now = self._beat_s = self._clock()
        if now - self._counted_s >= BEAT_S:
            self._counted_s = max(self._counted_s + BEAT_S, now - BEAT_S)
            self.heartbeat = (self.heartbeat + 1) % WRAP

    def controller_beats(self, value: int) -> None:
        """Take the controller's heartbeat; it counts from the first time on that it is given."""
        if value != self.controller_beat:
            self.controller_beat, self._controller_s = value, self._clock()

    def put(self, judgement: Judgement) -> Answer:
        """Let the answer of a judgement take the place of its source's last one, and return it.

        Raises `KeyError` for a source that is none of ours.
        """
        place = self._places[judgement.source]
        with self._changing:
            answer = self._answers[place] = self._answers[place].next(judgement)
            if answer.verdict != "none":  # the inspection went on until then, though it may not have said so yet
                self._judged_s = max(self._judged_s, answer.judged_s)
        return answer

    def close(self) -> None:
        """End: no verdict is shown any more."""
        self._closed = True

    def stopped(self) -> Why:
        """Return why no source's verdict can be trusted, `Why.VERDICT` where they can."""
        now = self._clock()
        if self._closed or now - max(self._beat_s, self._judged_s) > self._limits.safe_after_s:
            return Why.STOPPED
        if self.controller_beat is not None and now - self._controller_s > self._limits.safe_after_s:
            return Why.CONTROLLER_LOST
        return Why.VERDICT

    def shown(self) -> tuple[Answer, ...]:
        """Return what every source's answer is now; verdicts that cannot be trusted are withdrawn for good."""
        stopped = self.stopped()
        now = self._clock()
        if now - self._looked_s >= LOOK_S:
            self._looked_s = now
            self._lost = frozenset(one.name for one in self._states() if one.live and one.state != "live")
        with self._changing:
            for place, answer in enumerate(self._answers):
                why = stopped or self._withdraws(answer, self.sources[place] in self._lost, now)
                if why:
                    self._answers[place] = answer.withdrawn(why)
            return tuple(self._answers)

    def _withdraws(self, answer: Answer, lost: bool, now: float) -> Why:
        if lost and answer.judged_s <= self._looked_s:  # a newer one may be of a source that is back
            return Why.SOURCE_LOST
        return Why.OLD if now - answer.judged_s > self._limits.valid_s else Why.VERDICT
