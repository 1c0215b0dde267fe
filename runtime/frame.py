"""What every source delivers: frames in order, with where and when they were taken."""

from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Image8 = NDArray[np.uint8]  # (H, W, 3), RGB


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture: `image` is uint8 (H, W, 3) RGB.

    `name` is unique within its source and usable as a file name. `index` counts from 0 and skips
    the numbers of frames that a live source dropped. `captured_s` is the time of capture (of
    reading, for files) in seconds since 1970.
    """

    image: Image8
    name: str
    index: int
    captured_s: float


class Source(Protocol):
    """A context manager that yields frames once, in order; leaving it releases the device or file.

    `name` is what a person calls it, `live` says whether frames are lost when nobody asks for them,
    and `dropped` counts those so far (always 0 for files).
    """

    name: str
    live: bool

    @property
    def dropped(self) -> int:
        """Frames captured but never yielded, because a newer one took their place."""
        ...

    def __iter__(self) -> Iterator[Frame]: ...

    def close(self) -> None:
        """Release everything; a second call does nothing."""
        ...

    def __enter__(self) -> "Source": ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...
