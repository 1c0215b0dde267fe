"""A controller's trigger with its handshake: it rises, is taken or refused, answered, and acknowledged."""

import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from runtime.controller.answer import Answer
from runtime.triggers.trigger import Trigger

PART_LENGTH = 100  # the most characters of a part's id
NOT_STARTED = "no trigger is taken from here"


@dataclass(frozen=True)
class Handshake:
    """Where the newest trigger stands; `reason` says why it was `refused`."""

    busy: bool = False
    done: bool = False
    refused: bool = False
    reason: str = ""


class Asking:
    """Passes triggers of one `origin` on, and knows where the newest stands. Any thread may call anything."""

    def __init__(self, origin: str) -> None:
        self._origin = origin
        self._take: Callable[[Trigger], str] | None = None
        self._numbers = itertools.count(1)
        self._changing = threading.Lock()
        self._handshake = Handshake()
        self._asked: Trigger | None = None
        self._level = False

    def start(self, take: Callable[[Trigger], str]) -> None:
        """Pass triggers to `take` from now on."""
        self._take = take

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
        if rises:
            self.ask(part)
        elif not level:
            with self._changing:
                self._handshake = Handshake(busy=self._handshake.busy)

    def ask(self, part: str) -> str:
        """Ask for the verdict of `part` (empty: a number is counted); return why it is refused, "" where it is not."""
        with self._changing:
            trigger = Trigger(part.strip() or str(next(self._numbers)), time.monotonic(), self._origin)
            reason = self._ask(trigger)
            if reason:
                self._handshake = replace(self._handshake, done=False, refused=True, reason=reason)
            else:
                self._asked, self._handshake = trigger, Handshake(busy=True)
        return reason

    def _ask(self, trigger: Trigger) -> str:
        if self._take is None:
            return NOT_STARTED
        if len(trigger.part) > PART_LENGTH or not trigger.part.isprintable():
            return f"a part's id has up to {PART_LENGTH} printable characters"
        return self._take(trigger)

    def answered(self, answer: Answer) -> None:
        """See whether `answer` is that of the newest trigger."""
        with self._changing:
            if answer.trigger is not None and answer.trigger == self._asked:
                self._asked, self._handshake = None, Handshake(done=True)
