"""Items made ahead arrive in order, errors in their place, and an early end leaves nothing hanging."""

import pytest

from train.look_ahead import look_ahead


def test_items_keep_their_order() -> None:
    assert list(look_ahead(iter(range(20)))) == list(range(20))
    assert list(look_ahead(iter([None, 0, None]))) == [None, 0, None]
    assert list(look_ahead(iter([]))) == []


def test_the_next_item_is_made_while_one_is_in_use() -> None:
    made = []

    def items():
        for index in range(3):
            made.append(index)
            yield index

    ahead = look_ahead(items())
    assert next(ahead) == 0
    assert next(ahead) == 1
    assert made[:2] == [0, 1]
    assert list(ahead) == [2]


def test_an_error_arrives_in_its_items_place() -> None:
    def items():
        yield 1
        raise OSError("broken image")

    ahead = look_ahead(items())
    assert next(ahead) == 1
    with pytest.raises(OSError, match="broken image"):
        next(ahead)


def test_a_consumer_may_stop_early() -> None:
    ahead = look_ahead(iter(range(1000)))
    assert next(ahead) == 0
    ahead.close()
