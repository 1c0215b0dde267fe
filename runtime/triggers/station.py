"""One source as triggers see it: who waits for its next frame, and whose that frame is.

How a frame is known to be exposed after its trigger depends on the source:

- "free": a camera that runs by itself. A frame read after the trigger may still have been exposed before it: it waited
  in the driver, or was on its way. So it must be read `delay_s` later, and the first `skip` frames are passed over.
- "fired": a camera that takes a picture when it is told to. One at a time is asked for, so the next frame is its own.
- "files": frames come in the order of the triggers, and none is lost. A trigger that got none in time is owed one.
- "arriving": files that another program writes as parts come. In order too, but one may never come.

Of "fired" and "arriving" a frame that was missed may come late, and would pass for the next part's. So after a miss
frames belong to nobody until the source was quiet for `SETTLE_S`.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Literal

from runtime.triggers.trigger import Trigger

Kind = Literal["free", "fired", "files", "arriving"]
SETTLE_S = 1.0  # no camera and no file share takes longer to deliver


@dataclass(eq=False)
class Order:
    """What a trigger asks of one source: a verdict by `due_s`, of the monotonic clock."""

    trigger: Trigger
    source: str
    due_s: float
    recipe: str = ""  # in force when the trigger came
    fired_s: float | None = None  # when the camera was told to take its picture
    first: int | None = None  # number of the first frame that was read after the trigger
    bound: bool = False  # to a frame
    answered: bool = False


@dataclass(eq=False)
class Station:
    """The orders that wait for a frame of one source, in the order in which they came; locked by its owner."""

    kind: Kind
    delay_s: float
    skip: int
    waiting: deque[Order] = field(default_factory=deque)
    owed: int = 0
    missed_s: float = float("-inf")

    def unsettled_until_s(self) -> float:
        """Return until when frames belong to nobody."""
        return self.missed_s + SETTLE_S

    def claim(self, read_s: float, index: int) -> Order | None:
        """Return whose frame number `index` is, which was read at `read_s` (monotonic); None: nobody's."""
        if self.owed:
            self.owed -= 1
            return None
        if read_s < self.unsettled_until_s():
            self.missed_s = read_s
            return None
        if not self.waiting or not self._is_after(self.waiting[0], read_s, index):
            return None
        order = self.waiting.popleft()
        order.bound = True
        return order

    def _is_after(self, order: Order, read_s: float, index: int) -> bool:
        """Whether the frame was exposed after the trigger."""
        if self.kind == "fired":
            return order.fired_s is not None and read_s > order.fired_s
        if self.kind != "free":
            return True
        if read_s <= order.trigger.asked_s + self.delay_s:
            return False
        for waiting in self.waiting:  # all those whose trigger came before this frame
            if waiting.first is None and read_s > waiting.trigger.asked_s + self.delay_s:
                waiting.first = index
        return order.first is not None and index - order.first >= self.skip

    def give_up(self, order: Order, now_s: float) -> None:
        """Let `order` wait no more: its part has gone."""
        if order not in self.waiting:
            return
        self.waiting.remove(order)
        if self.kind == "files":
            self.owed += 1
        elif self.kind == "arriving" or order.fired_s is not None:
            self.missed_s = now_s

    def to_fire(self, now_s: float) -> Order | None:
        """Return what the camera is to be triggered for now; None where there is nothing, or one is under way."""
        first = self.waiting[0] if self.waiting else None
        ready = first is not None and first.fired_s is None and now_s >= self.unsettled_until_s()
        return first if ready else None
