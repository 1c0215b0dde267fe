"""The boxes of one judgement, found once, by the first sink that wants them."""

import threading
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from runtime.images.parts import Part, all_boxes
from runtime.images.regions import Region, regions_above
from runtime.result import Result


class SharedBoxes:
    """Finds the regions when it is first asked, and gives the same to the other sinks, whichever thread they run in.

    `known`: they have been found, and the map is not needed any more.
    """

    def __init__(self, known: tuple[Region, ...] | None = None) -> None:
        self._lock = threading.Lock()
        self._of: NDArray[np.float32] | None = None  # the map that they are of
        self._found: tuple[Region, ...] = known or ()
        self._known = known is not None

    def get(self, result: Result, size: tuple[int, int], parts: Sequence[Part] = ()) -> tuple[Region, ...]:
        """Return the regions of the map above its threshold in pixels of a frame of `size` = (height, width).

        With `parts` those of each of them.
        """
        with self._lock:  # who comes second waits for them
            if not self._known and self._of is not result.anomaly_map:
                self._of = result.anomaly_map
                if parts:
                    self._found = all_boxes(parts)
                else:
                    self._found = tuple(regions_above(result.anomaly_map, result.map_threshold, size))
            return self._found
