"""Judging on this machine: so many processes, each with an engine of its own and one thread."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from queue import SimpleQueue

from runtime.archive.items import Part
from runtime.archive.judging import Row
from runtime.archive.keeper import Keeper
from runtime.archive.setup import Setup


def on_pool(setup: Setup, parts: Sequence[Part], workers: int, first: Keeper) -> Iterator[tuple[Part, list[Row]]]:
    """Yield the rows of each part, as they come; `first` is open already, and one of the workers.

    Raises `UserError` where an engine cannot be opened.
    """
    free: SimpleQueue[Keeper] = SimpleQueue()

    def judged(part: Part) -> tuple[Part, list[Row]]:
        keeper = free.get()
        try:
            return part, keeper.judge(part)
        finally:
            free.put(keeper)

    with ThreadPoolExecutor(workers, "judge") as pool, ExitStack() as stack:
        for place in range(min(workers, len(parts))):
            free.put(stack.enter_context(Keeper(setup) if place else first))
        stack.callback(pool.shutdown, wait=False, cancel_futures=True)
        for done in as_completed([pool.submit(judged, part) for part in parts]):
            yield done.result()
