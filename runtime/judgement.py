"""What one frame came to, and where such judgements can go."""

from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

from runtime.detector import Result
from runtime.frame import Frame


@dataclass(frozen=True, eq=False)
class Judgement:
    """A frame with the engine's result.

    `source` is the name of the source that the frame came from, one of several where several cameras are judged in
    one process. `frame.image` is what was judged: after region of interest, mask, rotation and flip.
    """

    source: str
    frame: Frame
    result: Result


class Sink(Protocol):
    """Takes judgements one by one, in order.

    `write` may raise `OSError` or `UserError` for one that it could not deliver; the next is tried all the same.
    `close` finishes what was begun; a second call does nothing. One thread calls both.
    """

    name: str

    def write(self, judgement: Judgement) -> None:
        """Deliver one judgement; may take its time (see `runtime.delivery`)."""
        ...

    def close(self) -> None:
        """Finish and release everything."""
        ...

    def __enter__(self) -> "Sink": ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...
