"""Triggers on their way to an answer: each is taken or refused at once, and each that is taken gets one answer.

take ─▶ waiting at each source ─▶ claim: bound to a frame ─▶ judged ─▶ finish: in time?
                 └────────────── the deadline: answered without a verdict ──────────┘
"""

import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from runtime.common.closing import Closing
from runtime.common.notices import say
from runtime.common.summary import Newest
from runtime.triggers.counts import TriggerCounts
from runtime.triggers.options import TriggerOptions
from runtime.triggers.station import Kind, Order, Station
from runtime.triggers.trigger import Trigger

FULL = "too many triggers wait for their answer already"
TWICE = "this part waits for its answer already"
STOPPED = "the inspection has stopped"
NO_SOURCE = "there is no source of that name"
SETTLED_STEP_S = 0.05  # how soon a camera is triggered again after it has settled

Unanswered = Callable[[Order, str], None]


class Orders(Closing):
    """Every trigger that was taken and has no answer yet; any thread may call anything.

    Before `open` and after `close` every trigger is refused.
    """

    def __init__(self, options: TriggerOptions | None = None) -> None:
        self.options = options or TriggerOptions()
        self._changed = threading.Condition()  # guards what follows
        self._stations: dict[str, Station] = {}
        self._pending: list[Order] = []  # without an answer, in the order in which they came
        self._number = self._taken = self._answered = self._late = self._refused = self._lost = 0
        self._answer_ms = Newest()
        self._closed = True
        self._unanswered: Unanswered = lambda order, reason: None
        self._watch = threading.Thread(target=self._keep_deadlines, name="deadlines", daemon=True)

    def open(self, sources: Mapping[str, Kind], unanswered: Unanswered) -> None:
        """Take triggers for `sources` from now on; `unanswered` has to answer what gets no verdict in time, and why.

        It is called from a thread of the deadlines, and from the one that closes.
        """
        with self._changed:
            delay_s, skip = self.options.delay_s, self.options.skip
            self._stations = {name: Station(kind, delay_s, skip) for name, kind in sources.items()}
            self._unanswered = unanswered
            self._closed = False
        self._watch.start()

    def counted(self) -> str:
        """Return the next number for a part that came without an id."""
        with self._changed:
            self._number += 1
            return str(self._number)

    def take(self, trigger: Trigger) -> str:
        """Take a trigger and return an empty string, or why it is refused; never waits."""
        trigger = trigger if trigger.part else replace(trigger, part=self.counted())
        with self._changed:
            refusal = self._refusal(trigger)
            if refusal:
                self._refused += 1
                return refusal
            names = [trigger.source] if trigger.source else list(self._stations)
            for name in names:
                self._stations[name].waiting.append(self._add(trigger, name))
            self._changed.notify_all()
            return ""

    def _add(self, trigger: Trigger, source: str) -> Order:
        order = Order(trigger, source, trigger.asked_s + self.options.deadline_s)
        self._pending.append(order)
        self._taken += 1
        return order

    def _refusal(self, trigger: Trigger) -> str:
        if self._closed:
            return STOPPED
        if trigger.source and trigger.source not in self._stations:
            return NO_SOURCE
        waiting = {id(order.trigger): order.trigger for order in self._pending}.values()
        same = (other for other in waiting if other.part == trigger.part)
        if any(not other.source or not trigger.source or other.source == trigger.source for other in same):
            return TWICE
        return FULL if len(waiting) >= self.options.queue else ""

    def claim(self, source: str, read_s: float, index: int) -> Order | None:
        """Return whose frame number `index` is, which a live `source` gave at `read_s` (monotonic); None: nobody's."""
        with self._changed:
            if self._closed:
                return None
            if self.options.each_frame:
                return self._self_triggered(source, read_s)
            order = self._stations[source].claim(read_s, index)
            self._changed.notify_all()
            return order

    def _self_triggered(self, source: str, read_s: float) -> Order | None:
        trigger = Trigger(self.counted(), read_s, "camera", source)
        if self._refusal(trigger):
            self._refused += 1
            return None
        order = self._add(trigger, source)
        order.bound = True
        self._changed.notify_all()
        return order

    def claim_next(self, source: str, read_s: float, index: int) -> Order | None:
        """Wait for a trigger that takes the frame of a file; None: the frame is nobody's, or all is over."""
        station = self._stations[source]
        with self._changed:
            while not (self._closed or station.owed or time.monotonic() < station.unsettled_until_s()):
                if order := station.claim(time.monotonic(), index):
                    return order
                self._changed.wait()
            return None if self._closed else station.claim(time.monotonic(), index)

    def to_fire(self, source: str) -> Order | None:
        """Wait until the camera is to be triggered, and return what for; None once all is over."""
        station = self._stations[source]
        with self._changed:
            while not self._closed:
                if order := station.to_fire(time.monotonic()):
                    order.fired_s = time.monotonic()
                    return order
                self._changed.wait(SETTLED_STEP_S if station.waiting else None)
            return None

    def waits(self, source: str) -> bool:
        """Whether a frame of `source` is wanted."""
        with self._changed:
            return bool(self._stations[source].waiting)

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
            self._lost += 1

    def _answer(self, order: Order) -> None:
        order.answered = True
        self._pending.remove(order)
        self._answered += 1
        self._answer_ms.add(1e3 * (time.monotonic() - order.trigger.asked_s))

    def _give_up(self, order: Order, now_s: float) -> None:
        """Answer `order` without a verdict; where it has no frame, it gets none any more."""
        self._answer(order)
        self._late += now_s >= order.due_s
        if not order.bound:
            self._lost += 1
            self._stations[order.source].give_up(order, now_s)

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

    def counts(self) -> TriggerCounts:
        """Return what became of the triggers so far."""
        with self._changed:
            newest = self._answer_ms.values().copy()
            counted = (self._taken, self._answered, self._late, self._refused, self._lost, len(self._pending))
        if not len(newest):
            return TriggerCounts(*counted)
        p50, p99 = (float(value) for value in np.percentile(newest, (50, 99)))
        return TriggerCounts(*counted, p50, p99)

    def close(self) -> None:
        """Take no more, and answer what waits: it has no verdict; a second call does nothing."""
        with self._changed:
            self._closed = True
            left = list(self._pending)
            now_s = time.monotonic()
            for order in left:
                self._give_up(order, now_s)
                self._lost += order.bound  # what was under way has been finished before
            self._changed.notify_all()
        for order in left:
            self._unanswered(order, "stopped: the inspection ended before the verdict")
        if self._watch.ident is not None:
            self._watch.join(1.0)
