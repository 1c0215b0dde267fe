"""The overlay of one judgement, drawn once, by the first sink that wants it."""

import threading
import weakref
from collections.abc import Sequence

from runtime.images.overlay import draw, draw_parts
from runtime.images.parts import Part
from runtime.images.pixels import Image8
from runtime.result import Result

KEPT_BYTES = 128 << 20  # of all overlays that wait for further sinks; above that each sink draws again

_alive: "weakref.WeakValueDictionary[int, Image8]" = weakref.WeakValueDictionary()


class SharedOverlay:
    """Draws when it is first asked, and hands the same picture to the other sinks, whichever thread they run in.

    It lives as long as its judgement waits in a queue, or, where slow sinks hold up `KEPT_BYTES`, as long as a
    sink has it in hand.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._drawn: weakref.ref[Image8] | None = None
        self._kept: Image8 | None = None
        self._maximum = 0.0

    def get(self, image: Image8, result: Result, maximum: float, parts: Sequence[Part] = ()) -> Image8:
        """Return the overlay of `image` (H, W, 3), which nobody can write into (see `runtime.images.overlay.draw`).

        With `parts` each is drawn in its region.
        """
        with self._lock:  # who comes second waits for the picture
            picture = self._drawn() if self._drawn is not None else None
            if picture is None or maximum != self._maximum:
                picture = draw_parts(image, parts, result, maximum) if parts else draw(image, result, maximum)
                picture.flags.writeable = False
                self._maximum, self._drawn = maximum, weakref.ref(picture)
                waiting = sum(other.nbytes for other in list(_alive.values()))
                self._kept = picture if waiting + picture.nbytes <= KEPT_BYTES else None
                _alive[id(picture)] = picture
            return picture
