"""What is opened for a `with` statement and closed by its end, written once."""

from types import TracebackType
from typing import Protocol, TypeVar

Self = TypeVar("Self", bound="Closing")


class Closing(Protocol):
    """A base for whatever has a `close`: `with` gives the object itself and closes it, however the block ends.

    A protocol, so that protocols of rooms (a source, a sink, a session) can build on it too.
    """

    def close(self) -> None:
        """Release everything; a second call does nothing."""

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
