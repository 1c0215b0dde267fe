"""What the inspection answers to the process of its page."""

import time
from collections.abc import Callable
from typing import Any

from runtime.common.errors import UserError
from runtime.drift.watch import NoAlarm
from runtime.recipes.book import Recipes
from runtime.records.marks import Refused, Unknown
from runtime.serve.changes import Changes
from runtime.serve.http_triggers import NOT_TAKEN, HttpTriggers
from runtime.serve.link import Message
from runtime.serve.marking import Marking
from runtime.serve.metrics import Metrics
from runtime.serve.observed import Observed
from runtime.serve.page_state import PageState
from runtime.serve.threshold_control import ThresholdMoved
from runtime.serve.troubles import Troubles
from runtime.shadow.promotion import Against, Moved, Promotion

Answer = tuple[Message, bytes]
NOTHING: Answer = ({}, b"")
NO_SHADOW = "no engine is in shadow: start with --shadow FILE"
FAILED: Answer = ({"failed": True}, b"")


class Answers:
    """`to(question)` is short for every question but some.

    "threshold" reads the whole engine file, "recipe" may wait for cameras, a "trigger" for its answer, a "mark" for
    the log, and a "promotion" opens an engine.
    """

    def __init__(
        self,
        observed: Observed,
        page_state: PageState,
        metrics: Metrics,
        troubles: Troubles,
        changes: Changes,
        recipes: Recipes,
        triggers: HttpTriggers | None = None,
        marking: Marking | None = None,
        shadow: Promotion | None = None,
    ) -> None:
        self._shadow = shadow
        self._marking = marking or Marking(None)
        self._triggers = triggers
        self._recipes = recipes
        self._observed = observed
        self._page_state = page_state
        self._troubles = troubles
        self._kinds: dict[str, Callable[[Message], Answer]] = {
            "state": self._state,
            "live": self._live,
            "anomaly": self._anomaly,
            "crop": self._crop,
            "metrics": lambda question: ({}, metrics.text()),
            "health": self._health,
            "threshold": self._threshold,
            "recipe": self._recipe,
            "audit": lambda question: ({"kept": changes.kept, "changes": changes.newest()}, b""),
            "marks": lambda question: (self._marking.report(), b""),
            "mark": self._mark,
            "drift": self._acknowledge,
            "trigger": self._trigger,
            "promotion": self._promotion,
            "disagreement": self._disagreement,
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

    def _crop(self, question: Message) -> Answer:
        kept = (a.closer for a in self._observed.pictures.anomalies() if a.picture == question["picture"])
        closer = next(kept, None)
        return {}, closer.jpeg(question["crop"]) if closer else b""

    def _health(self, question: Message) -> Answer:
        """Whether frames are judged, and nothing else: a watchdog needs no token."""
        state = self._observed.health()
        age_s = None if state.age_s is None else round(state.age_s, 3)
        status = "ok" if state.ok else "failing"
        return {"status": status, "reason": state.reason, "last_judgement_age_s": age_s}, b""

    def _threshold(self, question: Message) -> Answer:
        try:
            who, origin = question["who"], question["origin"]
            value, instead_of, recipe = question["value"], question["instead_of"], question["recipe"]
            self._observed.control.write(value, instead_of, who, origin, recipe)
        except ThresholdMoved as error:
            return _refused(409, str(error))
        except UserError as error:
            return _refused(422, self._observed.control.without_folder(str(error)))
        except OSError as error:
            return _refused(507, f"the sidecar could not be written: {error.strerror or type(error).__name__}")
        return {"status": 200, "said": {"value": question["value"]}}, b""

    def _recipe(self, question: Message) -> Answer:
        name = question["recipe"]
        if refusal := self._recipes.use(name, question["who"], question["origin"]):
            return _refused(422 if name in self._recipes.names else 404, refusal)
        return {"status": 200, "said": {"recipe": name}}, b""

    def _mark(self, question: Message) -> Answer:
        """Mark what the page shows, or undo the mark of a judgement of the log."""
        said = {name: question[name] for name in ("reason", "who", "origin")}
        try:
            if question["as_kind"]:
                number = self._marking.mark(question["of"], question["as_kind"], said)
            else:
                number = question["of"]
                self._marking.withdraw(number, said)
        except Unknown as error:
            return _refused(404, str(error))
        except Refused as error:
            return _refused(409, str(error))
        except UserError as error:
            return _refused(507, self._observed.control.without_folder(str(error)))
        except OSError as error:
            return _refused(507, f"the mark could not be written: {error.strerror or type(error).__name__}")
        return {"status": 200, "said": {"judgement": number}}, b""

    def _disagreement(self, question: Message) -> Answer:
        if self._shadow is None:
            return NOTHING
        return {}, self._shadow.shadow.ledger.disagreements.jpeg(question["picture"])

    def _promotion(self, question: Message) -> Answer:
        """Promote the candidate, or let the engine before come back."""
        if self._shadow is None:
            return _refused(404, NO_SHADOW)
        asked = (question[name] for name in ("action", "candidate", "override", "who", "origin"))
        try:
            name = self._shadow.change(*asked)
        except (Moved, Against) as error:
            return _refused(409, str(error))
        except UserError as error:
            return _refused(422, self._observed.control.without_folder(str(error), self._shadow.files))
        except OSError as error:
            return _refused(507, f"it could not be noted: {error.strerror or type(error).__name__}")
        return {"status": 200, "said": {"engine": name}}, b""

    def _acknowledge(self, question: Message) -> Answer:
        """Enter that somebody knows of a drift alarm, or that what is now is the new normal."""
        if self._observed.drift is None:
            return _refused(404, "nobody watches for drift here: --drift off, or no camera or stream")
        try:
            self._observed.drift.acknowledge(*(question[name] for name in ("alarm", "renew", "who", "origin")))
        except NoAlarm as error:
            return _refused(404, str(error))
        return {"status": 200, "said": {"alarm": question["alarm"]}}, b""

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
