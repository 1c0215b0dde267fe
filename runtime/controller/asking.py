"""A controller's trigger with its handshake: it rises, is taken or refused, answered, and acknowledged."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from runtime.common.closing import Closing
from runtime.common.errors import UserError
from runtime.controller.answer import Answer
from runtime.triggers.trigger import Trigger, part_id

NOT_STARTED = "no trigger is taken from here"


@dataclass(frozen=True)
class Handshake:
    """Where the newest trigger stands; `reason` says why it was `refused`."""

    busy: bool = False
    done: bool = False
    refused: bool = False
    reason: str = ""


class Asking(Closing):
    """Passes triggers of one `origin` on, and knows where the newest stands. Any thread may call anything.

    A trigger asks all `sources`, or names the part of their next frames; it is done when each of them has answered.
    """

    def __init__(self, origin: str, sources: Sequence[str]) -> None:
        self.name = f"triggers of {origin}"
        self._origin = origin
        self._sources = frozenset(sources)
        self._take: Callable[[Trigger], str] | None = None
        self._changing = threading.Lock()
        self._handshake = Handshake()
        self._asked: Trigger | None = None
        self._missing: frozenset[str] = frozenset()  # sources whose answer is not there yet
        self._level = False

    def start(self, take: Callable[[Trigger], str]) -> None:
        """Pass triggers to `take` from now on, their part empty where the controller gave none."""
        self._take = take

    def close(self) -> None:
        """Refuse triggers from now on."""
        self._take = None

    @property
    def started(self) -> bool:
        """Whether triggers are taken."""
        return self._take is not None

    @property
    def level(self) -> bool:
        """What the controller last wrote."""
        return self._level

    @property
    def handshake(self) -> Handshake:
        """Where the newest trigger stands."""
        return self._handshake

    def write(self, level: bool, part: str) -> None:
        """Take what the controller writes: a rising edge asks for `part`, a falling one acknowledges the answer."""
        with self._changing:
            rises, self._level = level and not self._level, level
            if not level:
                self._handshake = Handshake(busy=self._handshake.busy)
        if rises:
            self.ask(part)

    def ask(self, part: str) -> str:
        """Ask for the verdict of `part` and return why it is refused, an empty string where it is not."""
        with self._changing:
            trigger = Trigger(part.strip(), time.monotonic(), self._origin)
            reason = self._ask(trigger)
            if reason:
                self._handshake = replace(self._handshake, done=False, refused=True, reason=reason)
            else:
                self._asked, self._missing, self._handshake = trigger, self._sources, Handshake(busy=True)
        return reason

    def _ask(self, trigger: Trigger) -> str:
        if self._take is None:
            return NOT_STARTED
        try:
            part_id(trigger.part)
        except UserError as error:
            return str(error)
        return self._take(trigger)

    def answered(self, source: str, answer: Answer) -> None:
        """See whether `answer`, of `source`, is one that the newest trigger waits for."""
        with self._changing:
            given, asked = answer.trigger, self._asked
            if given is None or asked is None:
                return
            given = given.named_by or given
            if (given.asked_s, given.origin) == (asked.asked_s, asked.origin):  # the part may have been counted
                self._missing -= {source}
                if not self._missing:
                    self._asked, self._handshake = None, Handshake(done=True)
