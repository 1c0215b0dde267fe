"""Ids of parts that are given for the frames of a camera whose own line triggers it."""

from collections import deque

from runtime.triggers.trigger import Trigger

MOST = 1000  # that wait for a frame; the oldest of more are given up


class PartIds:
    """The ids that wait for the next frame of one source, in the order in which they were given; locked by its owner.

    A frame takes the newest id that was given more than `delay_s` before the frame was read: what passes between its
    exposure and its reading. Older ids are `unused` then, for their frame never came; ids given later wait for the
    next frame. So each id belongs to one frame at most.
    """

    def __init__(self, delay_s: float) -> None:
        self.unused = 0
        self._delay_s = delay_s
        self._waiting: deque[Trigger] = deque()

    def give(self, trigger: Trigger) -> None:
        """Let `trigger` name the part of a frame to come."""
        self._waiting.append(trigger)
        if len(self._waiting) > MOST:
            self._give_up()

    def take(self, read_s: float) -> Trigger | None:
        """Return what names the part of the frame that was read at `read_s` (monotonic); None: nothing does."""
        if not self._is_for(read_s, 0):
            return None
        while self._is_for(read_s, 1):
            self._give_up()
        return self._waiting.popleft()

    def __len__(self) -> int:
        return len(self._waiting)

    def _is_for(self, read_s: float, place: int) -> bool:
        return len(self._waiting) > place and self._waiting[place].asked_s + self._delay_s < read_s

    def _give_up(self) -> None:
        self._waiting.popleft()
        self.unused += 1
