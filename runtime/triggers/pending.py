"""Orders without an answer: each gets one by its verdict, or at its deadline without one."""

import math
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from copy import deepcopy

from runtime.common.closing import Closing
from runtime.common.notices import say
from runtime.triggers.counts import TriggerCounts
from runtime.triggers.options import TriggerOptions
from runtime.triggers.station import Order
from runtime.triggers.tally import Tally

Unanswered = Callable[[Order, str], None]


class Pending(Closing, ABC):
    """Keeps the deadlines, from a thread that its heir starts, and counts; any thread may call anything.

    `_unanswered` has to answer what gets no verdict in time, and why.
    """

    def __init__(self, options: TriggerOptions | None = None) -> None:
        self.options = options or TriggerOptions()
        self._changed = threading.Condition()  # guards what follows
        self._pending: list[Order] = []  # in the order in which they came
        self._tally = Tally()
        self._closed = True
        self._unanswered: Unanswered = lambda order, reason: None
        self._watch = threading.Thread(target=self._keep_deadlines, name="deadlines", daemon=True)

    def finish(self, order: Order) -> bool:
        """Note that the verdict for `order` is there; return whether it is in time, and so is its answer."""
        with self._changed:
            in_time = not order.answered and time.monotonic() < order.due_s
            if in_time:
                self._answer(order)
            return in_time

    def lose(self, order: Order) -> None:
        """Note that no verdict will come for `order`, which was answered at its deadline."""
        with self._changed:
            self._tally.lost += 1

    def _answer(self, order: Order) -> None:
        order.answered = True
        self._pending.remove(order)
        self._tally.answered += 1
        self._tally.answer_ms.add(1e3 * (time.monotonic() - order.trigger.asked_s))

    def _give_up(self, order: Order, now_s: float) -> None:
        """Answer `order` without a verdict; where it has no frame, it gets none any more."""
        self._answer(order)
        self._tally.late += now_s >= order.due_s
        if not order.bound:
            self._tally.lost += 1
            self._wait_no_more(order, now_s)

    @abstractmethod
    def _wait_no_more(self, order: Order, now_s: float) -> None:
        """See to it that `order` gets no frame any more."""

    def _keep_deadlines(self) -> None:
        while True:
            with self._changed:
                if self._closed:
                    return
                now_s = time.monotonic()
                due = [order for order in self._pending if order.due_s <= now_s]
                for order in due:
                    self._give_up(order, now_s)
                if due:
                    self._changed.notify_all()
                else:
                    next_s = min((order.due_s for order in self._pending), default=math.inf)
                    self._changed.wait(None if next_s == math.inf else next_s - now_s)
            for order in due:
                self._answer_late(order)

    def _answer_late(self, order: Order) -> None:
        try:
            self._unanswered(order, f"late: no verdict within {1e3 * self.options.deadline_s:g} ms")
        except Exception as error:  # a defect with one answer must not be silence for all parts to come
            say(f"the part {order.trigger.part} could not be answered: {type(error).__name__}: {error}")

    @abstractmethod
    def _unused(self) -> int:
        """Return how many ids no frame came for."""

    def counts(self) -> TriggerCounts:
        """Return what became of the triggers so far."""
        with self._changed:
            tally, waiting, unused = deepcopy(self._tally), len(self._pending), self._unused()
        return tally.counts(waiting, unused)

    def close(self) -> None:
        """Take no more, and answer what waits: it has no verdict; a second call does nothing."""
        with self._changed:
            self._closed = True
            left = list(self._pending)
            now_s = time.monotonic()
            for order in left:
                self._give_up(order, now_s)
                self._tally.lost += order.bound  # what was under way has been finished before
            self._changed.notify_all()
        for order in left:
            self._unanswered(order, "stopped: the inspection ended before the verdict")
        if self._watch.ident is not None:
            self._watch.join(1.0)
