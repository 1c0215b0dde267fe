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


class FrameIds:
    """Follows a camera's frame numbers of one connection."""

    def __init__(self) -> None:
        self._last: int | None = None

    def missing_before(self, number: int) -> int:
        """Return how many frames are missing between the last number and this one.

        A number that falls from the upper to the lower half of 16 bits has wrapped; any other that falls, or stays, is
        a camera that counts anew, and says nothing of frames between.
        """
        last, self._last = self._last, number
        if last is None:
            return 0
        if number > last:
            return number - last - 1
        wrapped = last <= MOST_16_BITS and last - number > MOST_16_BITS // 2
        return MOST_16_BITS - last + max(number, 1) - 1 if wrapped else 0
