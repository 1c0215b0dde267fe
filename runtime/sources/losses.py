"""What a camera with numbered frames lost on the way to this machine."""

from dataclasses import dataclass


@dataclass
class Losses:
    """Counts that only grow, over all connections of a source.

    `incomplete` frames came with parts missing and were refused, `missing` ones are those whose numbers never came,
    `replaced` ones came whole, but a newer one was there before they were read.
    """

    incomplete: int = 0
    missing: int = 0
    replaced: int = 0


MOST_16_BITS = 65535  # GigE Vision counts 1 to 65535 and then 1 again, unless camera and library use 64 bits
LATE = 16  # frames that a number may come behind a newer one: a library waits for the packets of some at a time


class FrameIds:
    """Follows a camera's frame numbers of one connection, which may come out of order by up to `LATE` of them."""

    def __init__(self) -> None:
        self._last: int | None = None  # the newest number as the camera gave it
        self._newest = 0  # the same, counted on where the camera's wrapped
        self._awaited: set[int] = set()  # numbers below that which did not come yet
        self._nameless = 0  # of these came, nobody knows which

    def came(self, number: int) -> tuple[int, bool]:
        """Return how many frames are known to be missing since the last call, and whether this one is late.

        A number that falls from the upper to the lower half of 16 bits has wrapped. Any other that falls by more than
        `LATE` is a camera that counts anew, and says nothing of frames between.
        """
        step = 0 if self._last is None else _step(self._last, number)
        if self._last is None or step < -LATE:
            missing, self._last, self._newest = self.end(), number, 0
            return missing, False
        if step <= 0:
            self._awaited.discard(self._newest + step)
            return 0, True
        begin, self._last, self._newest = self._newest + 1, number, self._newest + step
        given_up = self._newest - LATE
        self._awaited |= set(range(max(begin, given_up), self._newest))
        lost = {awaited for awaited in self._awaited if awaited < given_up}
        self._awaited -= lost
        return self._but_nameless(len(lost) + max(0, given_up - begin)), False

    def came_nameless(self) -> None:
        """Note a frame that lost the part with its number: one of those that will be missing is not."""
        self._nameless += 1

    def end(self) -> int:
        """Return how many frames are missing that could still have come; nothing more will."""
        missing = self._but_nameless(len(self._awaited))
        self._awaited, self._nameless = set(), 0
        return missing

    def _but_nameless(self, missing: int) -> int:
        known = min(missing, self._nameless)
        self._nameless -= known
        return missing - known


def _step(last: int, number: int) -> int:
    """Return by how many frames `number` is newer than `last`; below 0: older."""
    step = number - last
    if max(last, number) <= MOST_16_BITS and abs(step) > MOST_16_BITS // 2:
        step += MOST_16_BITS if step < 0 else -MOST_16_BITS
    return step
