"""Work by several threads: in order, bounded, and over at the first error."""

import threading
import time

import pytest

from runtime.common import side_by_side as module
from runtime.common.side_by_side import AT_ONCE, one_ahead, side_by_side, workers


@pytest.fixture(params=[1, 2, 16])
def cores(request, monkeypatch):
    monkeypatch.setattr(module, "available_cores", lambda: request.param)
    return request.param


def test_results_are_in_the_order_of_the_tasks(cores):
    def late(number):
        time.sleep(0.02 if number == 0 else 0)
        return -number

    assert list(side_by_side(late, range(9))) == [0, -1, -2, -3, -4, -5, -6, -7, -8]
    assert list(side_by_side(late, [])) == []


def test_no_more_are_under_way_than_cores_and_the_bound(cores):
    under_way, most, lock = set(), [], threading.Lock()

    def work(number):
        with lock:
            under_way.add(number)
            most.append(len(under_way))
        time.sleep(0.005)
        with lock:
            under_way.discard(number)

    list(side_by_side(work, range(20)))
    assert max(most) <= min(cores, AT_ONCE)


def test_with_little_memory_fewer_are_done_at_once(monkeypatch):
    monkeypatch.setattr(module, "available_cores", lambda: 16)
    for memory, expected in ((64 << 30, AT_ONCE), (4 << 30, 2), (1 << 30, 1)):
        monkeypatch.setattr(module, "memory_bytes", lambda memory=memory: memory)
        assert workers(50) == expected
    assert workers(0) == 1


def test_an_error_is_the_callers_and_ends_it(cores):
    done = []

    def work(number):
        if number == 3:
            raise ValueError("three")
        time.sleep(0.002)
        done.append(number)

    with pytest.raises(ValueError, match="three"):
        list(side_by_side(work, range(200)))
    assert len(done) < 100


class TestOneAhead:
    def test_items_are_the_same(self):
        assert list(one_ahead(iter(range(7)))) == [0, 1, 2, 3, 4, 5, 6]
        assert list(one_ahead([])) == []

    def test_just_one_is_made_ahead(self):
        made = []

        def items():
            for number in range(5):
                made.append(number)
                yield number

        ahead = one_ahead(items())
        assert next(ahead) == 0
        time.sleep(0.05)
        assert made == [0, 1]
        ahead.close()

    def test_an_error_comes_behind_what_was_made_before_it(self):
        def items():
            yield 1
            raise ValueError("two")

        ahead = one_ahead(items())
        assert next(ahead) == 1
        with pytest.raises(ValueError, match="two"):
            next(ahead)
