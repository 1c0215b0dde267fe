"""Places that are always wrong: found where they are, and not by chance."""

import math

import numpy as np
import pytest

from runtime.improve.places import (
    BY_CHANCE,
    LUCK,
    always_wrong,
    box_cells,
    cell_side,
    cells_of,
    fewest_of,
    fewest_parts,
    highest,
    rectangle,
    spread,
)


def test_a_cell_has_what_lies_in_it():
    rng = np.random.default_rng(0)
    for size in ((32, 48), (100, 70), (256, 256), (7, 5)):
        positions = rng.random(size) > 0.99
        found, side = cells_of(positions), cell_side(size)
        for row, column in np.ndindex(found.shape):
            block = positions[row * side : (row + 1) * side, column * side : (column + 1) * side]
            assert found[row, column] == block.any()


def test_the_pixels_of_all_cells_are_the_frame_each_once():
    for size, frame in (((32, 48), (32, 48)), ((100, 70), (1080, 1920)), ((64, 64), (33, 47))):
        taken = np.zeros(frame, int)
        for row, column in np.ndindex(cells_of(np.zeros(size, bool)).shape):
            taken[rectangle(row, column, size, frame)] += 1
        assert (taken == 1).all()


@pytest.mark.parametrize(("parts", "cells"), [(4, 1024), (6, 1024), (10, 384), (40, 1024)])
def test_so_many_parts_must_hit_a_cell_as_chance_does_not(parts: int, cells: int):
    def by_chance(count: int) -> float:
        terms = (math.comb(parts, k) * BY_CHANCE**k * (1 - BY_CHANCE) ** (parts - k) for k in range(count, parts + 1))
        return cells * sum(terms)

    found = fewest_of(parts, cells)
    assert found > parts or by_chance(found) <= LUCK
    assert by_chance(found - 1) > LUCK
    assert fewest_parts(1024) == 6 and fewest_of(5, 1024) == 6


def test_alarms_anywhere_have_no_place_that_is_always_wrong():
    rng = np.random.default_rng(3)
    for _ in range(200):
        parts = []
        for _ in range(20):
            anomaly_map = np.zeros((64, 64), np.float32)
            row, column = rng.integers(0, 60, 2)
            anomaly_map[row : row + 5, column : column + 5] = 1.5
            parts.append(cells_of(highest(anomaly_map)))
        assert not always_wrong(parts)[0].any()


def test_a_place_that_every_second_alarm_has_is_found_and_no_other():
    rng = np.random.default_rng(4)
    parts = []
    for index in range(20):
        anomaly_map = rng.random((64, 64)).astype(np.float32) * 0.2
        row, column = (40, 10) if index % 2 else rng.integers(0, 30, 2)
        anomaly_map[row : row + 4, column : column + 4] = 1.5
        parts.append(cells_of(highest(anomaly_map)))
    wrong, hit = always_wrong(parts)
    assert {tuple(cell) for cell in np.argwhere(wrong)} == {(20, 5), (20, 6), (21, 5), (21, 6)} and hit == 10


def test_a_mask_takes_what_shines_around_a_place_and_hangs_together_with_it():
    wrong = np.zeros((16, 16), bool)
    wrong[4, 4] = True
    often = np.zeros((16, 16), bool)
    often[4:9, 4:6] = often[12:14, 12:14] = True  # one of them somewhere else
    rarely = often.copy()
    rarely[4, 6:12] = True
    found = spread(wrong, [often, often, rarely])
    expected = np.zeros((16, 16), bool)
    expected[3:6, 3:6] = expected[4:9, 4:6] = True
    assert np.array_equal(found, expected)


def test_a_box_is_where_its_cells_are_and_a_large_one_its_middle():
    size, frame = (64, 64), (640, 640)
    assert {tuple(cell) for cell in np.argwhere(box_cells((20, 40, 1, 41), frame, size))} == {(2, 1), (3, 1), (4, 1)}
    large = np.argwhere(box_cells((0, 0, 640, 320), frame, size))
    assert large.min(axis=0).tolist() == [4, 8] and large.max(axis=0).tolist() == [11, 23]
