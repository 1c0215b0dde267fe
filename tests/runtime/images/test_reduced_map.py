import numpy as np
import pytest

from runtime.images.reduced_map import empty_map, is_large_map, reduced_map


@pytest.mark.parametrize(("size", "side"), [((300, 410), 96), ((97, 64), 50), ((1000, 3), 128), ((40, 40), 40)])
def test_no_defect_is_lost_and_none_moves_by_more_than_a_position(size: tuple[int, int], side: int):
    rng = np.random.default_rng(sum(size))
    for _ in range(50):
        row, column = int(rng.integers(size[0])), int(rng.integers(size[1]))
        anomaly_map = np.zeros(size, np.float32)
        anomaly_map[row, column] = 2.0
        small = reduced_map(anomaly_map, side)
        assert max(small.shape) == min(side, max(size)) and np.count_nonzero(small) == 1
        (found,) = np.argwhere(small == 2.0)
        middle = (found + 0.5) * np.array(size) / np.array(small.shape) - 0.5
        step = np.array(size) / np.array(small.shape)
        assert (np.abs(middle - (row, column)) <= step).all()


def test_each_position_is_the_highest_of_what_it_stands_for():
    anomaly_map = np.random.default_rng(0).random((60, 90), np.float32)
    blocks = anomaly_map.reshape(20, 3, 30, 3).max(axis=(1, 3))
    np.testing.assert_array_equal(reduced_map(anomaly_map, 30), blocks)
    assert reduced_map(anomaly_map, 90) is anomaly_map


def test_an_empty_map_takes_no_memory_and_is_not_large():
    large = np.ones((600, 800), np.float32)
    empty = empty_map(large)
    assert is_large_map(large) and not is_large_map(empty) and not is_large_map(np.ones((256, 256), np.float32))
    assert empty.shape == large.shape and not empty.any() and not empty.flags.writeable
