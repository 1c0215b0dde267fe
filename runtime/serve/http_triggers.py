"""Triggers over HTTP: the page's process passes them on, and waits for the answer where the visitor does."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from runtime.common.closing import Closing
from runtime.result import Verdict
from runtime.serve.link import Message
from runtime.sinks.json_lines import as_json
from runtime.sinks.judgement import Judgement
from runtime.triggers.orders import FULL, NO_SOURCE, STOPPED, TWICE, Orders
from runtime.triggers.trigger import Trigger

STATUS = {FULL: 429, TWICE: 409, STOPPED: 503, NO_SOURCE: 404}
NOT_TAKEN = "this inspection takes no triggers over HTTP (--trigger http)"
BEYOND_S = 10.0  # after the deadline, which answers every trigger


@dataclass(eq=False)
class _Waiting:
    """Somebody who waits for as many answers as sources were asked."""

    trigger: Trigger
    missing: int
    answers: list[Judgement] = field(default_factory=list)
    complete: threading.Event = field(default_factory=threading.Event)


class HttpTriggers(Closing):
    """The input "http". `sources` says how many sources a trigger asks that names none."""

    name = "http"

    def __init__(self, orders: Orders, sources: Callable[[], int]) -> None:
        self._orders, self._sources = orders, sources
        self._take: Callable[[Trigger], str] | None = None
        self._lock = threading.Lock()
        self._waiting: dict[int, _Waiting] = {}  # by the identity of the trigger

    def start(self, take: Callable[[Trigger], str]) -> None:
        """Pass triggers to `take` from now on."""
        self._take = take

    def ask(self, part: str, source: str, asked_s: float, wait: bool) -> tuple[int, Message]:
        """Return the HTTP status and what is said: that the trigger is taken, or, with `wait`, its answers."""
        if self._take is None:
            return 404, {"error": NOT_TAKEN}
        trigger = Trigger(part or self._orders.counted(), asked_s, self.name, source)
        waiting = _Waiting(trigger, 1 if source else self._sources())
        if wait:
            with self._lock:
                self._waiting[id(trigger)] = waiting
        try:
            if refusal := self._take(trigger):
                return STATUS.get(refusal, 503), {"error": refusal, "part": trigger.part}
            if not wait:
                return 202, {"part": trigger.part}
            waiting.complete.wait(self._orders.options.deadline_s + BEYOND_S)
            return 200, _said(trigger.part, waiting.answers)
        finally:
            with self._lock:
                self._waiting.pop(id(trigger), None)

    def offer(self, judgement: Judgement) -> None:
        """Take one judgement, which may be somebody's answer."""
        if judgement.trigger is None or not judgement.answers:
            return
        with self._lock:
            waiting = self._waiting.get(id(judgement.trigger.named_by or judgement.trigger))
            if waiting is None:
                return
            waiting.answers.append(judgement.without_picture())
            waiting.missing -= 1
        if waiting.missing == 0:
            waiting.complete.set()

    def close(self) -> None:
        """Take no more; a second call does nothing."""
        self._take = None


def _said(part: str, answers: Sequence[Judgement]) -> Message:
    told = [answer.told() for answer in answers]
    return {"part": part, "verdict": joint([one.result.verdict for one in told]), "answers": [*map(as_json, told)]}


def joint(verdicts: Sequence[Verdict]) -> Verdict:
    """Return the verdict of a part that several sources judged: good only where each of them says so."""
    if "anomalous" in verdicts:
        return "anomalous"
    return "good" if verdicts and set(verdicts) == {"good"} else "none"
