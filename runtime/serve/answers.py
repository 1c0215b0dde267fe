"""What the inspection answers to the process of its page."""

import time
from collections.abc import Callable
from typing import Any

from runtime.common.errors import UserError
from runtime.serve.changes import Changes
from runtime.serve.http_triggers import NOT_TAKEN, HttpTriggers
from runtime.serve.link import Message
from runtime.serve.metrics import Metrics
from runtime.serve.observed import Observed
from runtime.serve.page_state import PageState
from runtime.serve.threshold_control import ThresholdMoved
from runtime.serve.troubles import Troubles

Answer = tuple[Message, bytes]
NOTHING: Answer = ({}, b"")
FAILED: Answer = ({"failed": True}, b"")


class Answers:
    """`to(question)` is short for every question but two.

    "threshold" reads the whole engine file, and a "trigger" may wait for its answer.
    """

    def __init__(
        self,
        observed: Observed,
        page_state: PageState,
        metrics: Metrics,
        troubles: Troubles,
        changes: Changes,
        triggers: HttpTriggers | None = None,
    ) -> None:
        self._triggers = triggers
        self._observed = observed
        self._page_state = page_state
        self._troubles = troubles
        self._kinds: dict[str, Callable[[Message], Answer]] = {
            "state": self._state,
            "live": self._live,
            "anomaly": self._anomaly,
            "metrics": lambda question: ({}, metrics.text()),
            "health": self._health,
            "threshold": self._threshold,
            "audit": lambda question: ({"kept": changes.kept, "changes": changes.newest()}, b""),
            "trigger": self._trigger,
            "troubles": self._note,
        }

    def to(self, question: Message) -> Answer:
        """Return the answer; a defect is counted, and the answer then says no more than that."""
        try:
            return self._kinds[question["ask"]](question)
        except Exception as error:
            self._troubles.add("request", error)
            return FAILED

    def _state(self, question: Message) -> Answer:
        return self._page_state.since(question["since"], question["minutes"]), b""

    def _live(self, question: Message) -> Answer:
        picture = self._observed.pictures.live(question["source"], question["after"])
        if picture is None:
            return NOTHING
        result = picture.result
        shown = {"score": result.score, "threshold": result.threshold, "verdict": result.verdict}
        return {"number": picture.number, "reason": result.reason, **shown}, picture.jpeg

    def _anomaly(self, question: Message) -> Answer:
        kept = (a.jpeg for a in self._observed.pictures.anomalies() if a.picture == question["picture"])
        return {}, next(kept, b"")

    def _health(self, question: Message) -> Answer:
        """Whether frames are judged, and nothing else: a watchdog needs no token."""
        state = self._observed.health()
        age_s = None if state.age_s is None else round(state.age_s, 3)
        status = "ok" if state.ok else "failing"
        return {"status": status, "reason": state.reason, "last_judgement_age_s": age_s}, b""

    def _threshold(self, question: Message) -> Answer:
        try:
            who, origin = question["who"], question["origin"]
            self._observed.control.write(question["value"], question["instead_of"], who, origin)
        except ThresholdMoved as error:
            return _refused(409, str(error))
        except UserError as error:
            return _refused(422, self._observed.control.without_folder(str(error)))
        except OSError as error:
            return _refused(507, f"the sidecar could not be written: {error.strerror or type(error).__name__}")
        return {"status": 200, "said": {"value": question["value"]}}, b""

    def _trigger(self, question: Message) -> Answer:
        if self._triggers is None:
            return _refused(404, NOT_TAKEN)
        asked_s = min(question["asked_s"], time.monotonic())  # when the page's process had it: one clock for both
        status, said = self._triggers.ask(question["part"], question["source"], asked_s, question["wait"])
        return {"status": status, "said": said}, b""

    def _note(self, question: Message) -> Answer:
        for kind, (count, text) in question["troubles"].items():
            self._troubles.add(kind, text, count)
        return NOTHING


def _refused(status: int, error: str) -> Answer:
    said: dict[str, Any] = {"error": error}
    return {"status": status, "said": said}, b""
