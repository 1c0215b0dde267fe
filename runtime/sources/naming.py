"""What sources and their frames are called: two sources never the same, nor frames of two runs of a live source.

Overlays, events, videos, JSON lines, messages and the page tell sources apart by these names alone.
"""

from collections.abc import Sequence
from functools import cache
from itertools import count

from runtime.common.errors import UserError
from runtime.common.moments import new_mark
from runtime.common.notices import say


@cache
def run_mark() -> str:
    """Return what no other run of the program has, the same for all of this one."""
    return new_mark()


def live_frame_name(prefix: str, index: int) -> str:
    """Return the name of a live source's frame: after a restart the numbers begin again, and names must not."""
    return f"{prefix}_{run_mark()}_{index:06d}"


def chosen_names(names: Sequence[str], sources: int) -> list[str]:
    """Return the names that were given to so many `sources`.

    Raises `UserError` for another number of them, and for two that differ in nothing but upper and lower case: they
    become folders, and not every disk tells those apart.
    """
    if len(names) != sources:
        raise UserError("--name must be given once for each source", f"{len(names)} for {sources}")
    for i, name in enumerate(names):
        if name.casefold() in (earlier.casefold() for earlier in names[:i]):
            raise UserError("each source must have a name of its own", f"{name!r} twice", "choose another --name")
    return list(names)


def unique_names(names: Sequence[str]) -> list[str]:
    """Return `names`, those that were there before with -2, -3, ... behind them, and say so."""
    taken = {name.casefold() for name in names}
    unique: list[str] = []
    for i, name in enumerate(names):
        free = name
        if name.casefold() in (earlier.casefold() for earlier in names[:i]):
            free = next(found for number in count(2) if (found := f"{name}-{number}").casefold() not in taken)
            say(f"two sources are called {name}: one is {free} (--name gives them names of your own)")
        taken.add(free.casefold())
        unique.append(free)
    return unique
