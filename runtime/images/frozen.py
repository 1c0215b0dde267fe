"""A camera that repeats one picture for ever: a stuck driver, a frozen stream, a still image in front of the lens."""

import numpy as np

from runtime.images.pixels import Image8, every_nth

SIDE = 256  # pixels of the longer side of what is compared: every n-th pixel


class FrozenCheck:
    """Follows one live source. Two pictures of a real sensor are never equal: its noise differs.

    `after_s` is how long equal pictures are borne; 0: for ever, as for a camera without any noise. There must be
    `least` of them: of a camera that takes a picture when it is told to, the time between two says nothing.
    """

    def __init__(self, after_s: float, least: int = 2) -> None:
        self._after_s = after_s
        self._least = least
        self._last: Image8 | None = None
        self._since_s = 0.0
        self._equal = 0

    def reason(self, image: Image8, now_s: float) -> str:
        """Say for how long `image` (H, W, 3), taken at the monotonic `now_s`, has not changed; empty if not long."""
        if not self._after_s:
            return ""
        sampled = np.array(every_nth(image, SIDE), order="C")  # a copy side by side, which is compared faster
        if self._last is None or not np.array_equal(sampled, self._last):
            self._last, self._since_s, self._equal = sampled, now_s, 0
        self._equal += 1
        still_s = now_s - self._since_s
        frozen = still_s >= self._after_s and self._equal >= self._least
        return f"the picture has not changed for {still_s:.0f} s" if frozen else ""
