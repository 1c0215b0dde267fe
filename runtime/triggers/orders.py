"""Triggers on their way to an answer: each is taken or refused at once, and each that is taken gets one answer.

take ─▶ waiting at each source ─▶ claim: bound to a frame ─▶ judged ─▶ finish: in time?
                 └────────────── the deadline: answered without a verdict ──────────┘
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from runtime.common.notices import say, worth_saying
from runtime.triggers.options import TriggerOptions
from runtime.triggers.part_ids import PartIds
from runtime.triggers.pending import Pending, Unanswered
from runtime.triggers.station import Kind, Order, Station
from runtime.triggers.trigger import Trigger

FULL = "too many triggers wait for their answer already"
TWICE = "this part waits for its answer already"
STOPPED = "the inspection has stopped"
NO_SOURCE = "there is no source of that name"
CAMERA = "camera"  # the origin of what a camera's own line triggered
CHANGING = "the recipe is being changed"
HOLD_S = 1.0  # beyond the last deadline, by which every part has its frame or has none
SETTLED_STEP_S = 0.05  # how soon a camera is triggered again after it has settled


class Orders(Pending):
    """Every trigger that was taken and has no answer yet; any thread may call anything.

    Before `open` and after `close` every trigger is refused.
    """

    def __init__(self, options: TriggerOptions | None = None) -> None:
        super().__init__(options)
        self._stations: dict[str, Station] = {}
        self._ids: dict[str, PartIds] = {}  # of each source, where its frames ask for themselves
        self._number = 0
        self._recipe: Callable[[], str] = str
        self._held = False

    def open(self, sources: Mapping[str, Kind], unanswered: Unanswered, recipe: Callable[[], str] = str) -> None:
        """Take triggers for `sources` from now on; `unanswered` has to answer what gets no verdict in time, and why.

        It is called from a thread of the deadlines, and from the one that closes. `recipe` says which recipe is in
        force: a trigger keeps the one that it came under.
        """
        with self._changed:
            delay_s, skip = self.options.delay_s, self.options.skip
            self._stations = {name: Station(kind, delay_s, skip) for name, kind in sources.items()}
            self._ids = {name: PartIds(delay_s) for name in sources if self.options.each_frame}
            self._unanswered, self._recipe = unanswered, recipe
            self._closed = False
        self._watch.start()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Refuse triggers within; begins once each one that was taken before has its frame, or has missed it."""
        with self._changed:
            self._held = True
            until_s = max((order.due_s for order in self._pending), default=0.0) + HOLD_S
            have_frames = lambda: self._closed or all(order.bound for order in self._pending)  # noqa: E731
            self._changed.wait_for(have_frames, max(0.0, until_s - time.monotonic()))
        try:
            yield
        finally:
            with self._changed:
                self._held = False

    def counted(self) -> str:
        """Return the next number for a part that came without an id."""
        with self._changed:
            self._number += 1
            return str(self._number)

    def take(self, trigger: Trigger) -> str:
        """Take a trigger and return an empty string, or why it is refused; never waits.

        Where each frame asks for itself, it gives the next one the part's id.
        """
        trigger = trigger if trigger.part else replace(trigger, part=self.counted())
        with self._changed:
            refusal = self._refusal(trigger)
            if refusal:
                self._tally.refused += 1
                return refusal
            recipe = self._recipe()  # one for all sources
            for name in [trigger.source] if trigger.source else self._stations:
                if self.options.each_frame:
                    self._ids[name].give(trigger)
                else:
                    self._stations[name].waiting.append(self._add(trigger, name, recipe))
            self._changed.notify_all()
            return ""

    def _add(self, trigger: Trigger, source: str, recipe: str) -> Order:
        order = Order(trigger, source, trigger.asked_s + self.options.deadline_s, recipe)
        self._pending.append(order)
        self._tally.taken += 1
        return order

    def _refusal(self, trigger: Trigger) -> str:
        if self._closed:
            return STOPPED
        if self._held:
            return CHANGING
        if trigger.source and trigger.source not in self._stations:
            return NO_SOURCE
        waiting = {id(order.trigger): order.trigger for order in self._pending}.values()
        same = (other for other in waiting if other.part == trigger.part)
        if any(not other.source or not trigger.source or other.source == trigger.source for other in same):
            return TWICE
        gives_id = self.options.each_frame and trigger.origin != CAMERA  # and that takes no place in the queue
        return FULL if len(waiting) >= self.options.queue and not gives_id else ""

    def claim(self, source: str, read_s: float, index: int) -> Order | None:
        """Return whose frame number `index` is, which a live `source` gave at `read_s` (monotonic); None: nobody's."""
        if self.options.each_frame:
            return self._self_triggered(source, read_s)
        with self._changed:
            if self._closed:
                return None
            order = self._stations[source].claim(read_s, index)
            self._changed.notify_all()
            return order

    def _self_triggered(self, source: str, read_s: float) -> Order | None:
        """Return the order of a frame that asks for itself; where it is refused, a part with an id is told so."""
        with self._changed:
            if self._closed:
                return None
            given = self._ids[source].take(read_s)
            trigger = Trigger(self.counted() if given is None else given.part, read_s, CAMERA, source, given)
            missing = self.options.named and given is None
            self._tally.unnamed += missing
            unnamed = self._tally.unnamed if missing else 0
            refusal = self._refusal(trigger)
            if refusal:
                self._tally.refused += 1
                order = Order(trigger, source, trigger.asked_s + self.options.deadline_s, self._recipe())
            else:
                order = self._add(trigger, source, self._recipe())
                self._changed.notify_all()
            order.bound = True
        if worth_saying(unnamed):
            say(f"{source}: no part's id was given for a frame, which is counted as {trigger.part} ({unnamed} so far)")
        if refusal and given is not None:
            self._unanswered(order, f"refused: {refusal}")
        return None if refusal else order

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

    def _wait_no_more(self, order: Order, now_s: float) -> None:
        self._stations[order.source].give_up(order, now_s)

    def _unused(self) -> int:
        return sum(ids.unused + (len(ids) if self._closed else 0) for ids in self._ids.values())
