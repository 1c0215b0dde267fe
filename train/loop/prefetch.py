"""The next item made beside the work on this one."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")


def prefetch(items: Iterator[Item]) -> Iterator[Item]:
    """Yield `items`, each made in a thread while its predecessor is in use. An error arrives in its item's place."""
    end = object()
    with ThreadPoolExecutor(1, thread_name_prefix="look-ahead") as thread:
        following = thread.submit(next, items, end)
        while (item := following.result()) is not end:
            following = thread.submit(next, items, end)
            yield item  # type: ignore[misc]
