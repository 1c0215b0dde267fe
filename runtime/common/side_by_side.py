"""Work that can be done in any order, by a thread on each core: libraries let others run while they compute."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from runtime.common.machine import available_cores, memory_bytes

AT_ONCE = 8  # tasks at most: each has memory of its own
TASK_BYTES = 2 << 30  # of this machine's memory, for a task: with less memory fewer are done at once

Task = TypeVar("Task")
Done = TypeVar("Done")


def workers(tasks: int) -> int:
    """Return how many of so many tasks are done at once."""
    return max(1, min(available_cores(), AT_ONCE, memory_bytes() // TASK_BYTES, tasks))


def side_by_side(work: Callable[[Task], Done], tasks: Sequence[Task]) -> Iterator[Done]:
    """Yield what `work` makes of each task, in their order.

    After an error, or a Ctrl-C, those that are under way are waited for and no other is begun.
    """
    with ThreadPoolExecutor(workers(len(tasks)), "side_by_side") as pool:
        yield from pool.map(work, tasks)


def one_ahead(items: Iterable[Done]) -> Iterator[Done]:
    """Yield `items`, the next one made by another thread while the caller works with the one it has.

    An error arrives in its item's place.
    """
    source = iter(items)
    end = object()
    with ThreadPoolExecutor(1, "one_ahead") as pool:
        coming = pool.submit(next, source, end)
        while (item := coming.result()) is not end:
            coming = pool.submit(next, source, end)
            yield item  # type: ignore[misc]  # not the end
