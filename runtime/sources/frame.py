"""What every source delivers: frames in order, with where and when they were taken."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from runtime.common.closing import Closing
from runtime.images.encoding import Encoding
from runtime.images.pixels import Image8


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture: `image` is uint8 (H, W, 3) RGB.

    `name` is usable as a file name and unique within its source, a live source's beyond the run (it holds
    `runtime.sources.naming.run_mark`); that of a watched folder's file which was written anew begins as it did before.
    `index` counts from 0 and skips the numbers of frames that a live source dropped. `captured_s` is the time of
    capture (of reading, for files) in seconds since 1970, `monotonic_s` the same by a clock that nobody sets: time
    between two frames is the difference of these. `camera_s` is when it was taken by the camera's own clock, in
    seconds from wherever that counts (None: the camera does not say). `fault` says why the picture is not what was to
    be judged (a damaged file), and so has no verdict; empty where it is.
    """

    image: Image8
    name: str
    index: int
    captured_s: float
    fault: str = ""
    monotonic_s: float = field(default_factory=time.monotonic)
    camera_s: float | None = None


LOST = "reconnecting"  # begins the state of a source that is lost and tried again


def blank(shape: Sequence[int] = (64, 64, 3)) -> Image8:
    """Return a black picture of `shape` (H, W, 3), in the place of one that cannot be read."""
    return np.zeros(shape, np.uint8)


class Source(Closing, Protocol):
    """A context manager that yields frames once, in order; leaving it releases the device or file.

    `name` is what a person calls it, `live` says whether frames are lost when nobody asks for them. The counters
    only ever grow, and may be read from any thread; what is here is what files have that are read to their end.
    `encoding` is how the newest picture came, as far as file or driver say; None before the first. `uniform` says that
    all pictures come from one device or file, so that where the first does not fit, none will. `software_triggered`
    says that it takes a picture only when its `software_trigger` is called (`runtime.sources.asked`).
    """

    name: str
    live: bool
    encoding: Encoding | None = None
    uniform: bool = True
    software_triggered: bool = False

    @property
    def dropped(self) -> int:
        """Frames captured (files seen) but never yielded: a newer one took their place, or they went."""
        return 0

    @property
    def unreadable(self) -> int:
        """Files or frames that could not be read as they were written; each has no verdict."""
        return 0

    @property
    def reconnects(self) -> int:
        """How often the source came back after it was lost."""
        return 0

    @property
    def incomplete(self) -> int:
        """Frames that came with parts missing, and were refused."""
        return 0

    @property
    def missing(self) -> int:
        """Frames that the camera numbered and that never came."""
        return 0

    @property
    def state(self) -> str:
        """For a person: "live", "reconnecting since 2026-03-01T12:00:00+00:00 (why)", "ended", "file"."""
        return "file"

    def __iter__(self) -> Iterator[Frame]: ...
