"""Items made ahead arrive in order, errors in their place, and an early end leaves nothing hanging."""

import threading
from collections.abc import Iterator

import pytest

from runtime.common.side_by_side import one_ahead

PATIENCE = 30  # seconds until a test gives up on another thread


def test_items_keep_their_order() -> None:
    assert list(one_ahead(iter(range(20)))) == list(range(20))
    assert list(one_ahead(iter([None, 0, None]))) == [None, 0, None]
    assert list(one_ahead(iter([]))) == []


def test_the_next_item_is_made_while_one_is_in_use() -> None:
    made = [threading.Event() for _ in range(3)]

    def items() -> Iterator[int]:
        for index, event in enumerate(made):
            event.set()
            yield index

    for item in one_ahead(items()):
        if item + 1 < len(made):
            assert made[item + 1].wait(PATIENCE)


def test_no_more_than_the_next_item_is_made() -> None:
    made: list[int] = []
    ahead = one_ahead(made.append(index) or index for index in range(9))  # type: ignore[func-returns-value]
    assert [next(ahead), next(ahead)] == [0, 1]
    ahead.close()
    assert made == [0, 1, 2]


def test_an_error_arrives_in_its_items_place() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise OSError("broken image")

    ahead = one_ahead(items())
    assert next(ahead) == 1
    with pytest.raises(OSError, match="broken image"):
        next(ahead)
    assert list(ahead) == []


def test_a_consumer_may_stop_early() -> None:
    def consume() -> None:
        for _ in one_ahead(iter(range(1000))):
            raise KeyboardInterrupt

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        consume()
    for thread in threading.enumerate():
        if thread.name.startswith("one_ahead"):
            thread.join(PATIENCE)
    assert threading.active_count() == before
