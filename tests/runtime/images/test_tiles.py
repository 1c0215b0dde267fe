"""Tiles cover a frame, their weights are shares of one, and a map that is cut and blended is the map that was cut."""

import json
from itertools import pairwise

import numpy as np
import pytest

from runtime.common.errors import UserError
from runtime.images.tiles import TileGrid

GRIDS = [
    TileGrid((3000, 4096), (512, 512), 64),
    TileGrid((300, 410), (128, 96), 30),
    TileGrid((129, 128), (128, 128), 42),  # one pixel more than a tile
    TileGrid((300, 200), (100, 100), 0),
    TileGrid((301, 213), (100, 100), 33),  # seams that lie close to each other
    TileGrid((64, 64), (64, 64), 16),
]


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_tiles_begin_at_the_start_end_at_the_end_and_share_the_overlap(grid: TileGrid) -> None:
    for starts, tile, side in zip((grid.tops, grid.lefts), grid.tile, grid.frame, strict=True):
        assert starts[0] == 0 and starts[-1] + tile == side
        assert all(second - first <= tile - grid.overlap for first, second in pairwise(starts))
    assert grid.count == len(list(grid.corners()))


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_every_pixel_has_weights_of_one_from_at_most_two_tiles(grid: TileGrid) -> None:
    axes = ((grid.row_weights(), grid.tops, 0), (grid.column_weights(), grid.lefts, 1))
    for weights, starts, axis in axes:
        total, counted = np.zeros(grid.frame[axis]), np.zeros(grid.frame[axis], int)
        for weight, start in zip(weights, starts, strict=True):
            total[start : start + len(weight)] += weight
            counted[start : start + len(weight)] += weight > 0
        np.testing.assert_allclose(total, 1, atol=1e-6)  # two float32 roundings
        assert counted.max() <= 2


def test_what_lies_next_to_an_edge_within_the_frame_does_not_count() -> None:
    weights = TileGrid((200, 200), (110, 110), 20).row_weights()
    np.testing.assert_array_equal(weights[0, -5:], 0)  # a quarter of the overlap
    np.testing.assert_array_equal(weights[1, :5], 0)
    assert weights[0, -6] > 0 and weights[0, 0] == 1  # the frame's own edge has one tile only


@pytest.mark.parametrize("grid", GRIDS[1:], ids=str)
def test_a_map_that_is_cut_and_blended_is_itself(grid: TileGrid) -> None:
    scene = np.random.default_rng(0).random(grid.frame, dtype=np.float32)
    np.testing.assert_allclose(grid.blend(grid.cut(scene)), scene, atol=1e-6)  # type: ignore[arg-type]


def test_a_grid_comes_back_from_json() -> None:
    grid = GRIDS[0]
    assert TileGrid.from_json(json.loads(json.dumps(grid.to_json()))) == grid


@pytest.mark.parametrize(
    ("frame", "tile", "overlap", "words"),
    [
        ((100, 100), (128, 64), 0, "within the frame"),
        ((300, 300), (100, 100), 34, "0 to 33 pixels"),
        ((300, 300), (100, 100), -1, "0 to 33 pixels"),
        ((16384, 16384), (64, 64), 0, "at most 4096 tiles"),
    ],
)
def test_tiles_that_do_not_fit_are_refused(
    frame: tuple[int, int], tile: tuple[int, int], overlap: int, words: str
) -> None:
    with pytest.raises(UserError, match=words):
        TileGrid(frame, tile, overlap)
    with pytest.raises(ValueError, match=words):
        TileGrid.from_json({"frame": frame, "tile": tile, "overlap": overlap})


@pytest.mark.parametrize(
    "value",
    [
        {"frame": [300, 300], "tile": [100], "overlap": 0},
        {"frame": [300, 300], "tile": [0, 100], "overlap": 0},
        {"frame": [300, 1 << 20], "tile": [100, 100], "overlap": 0},
        {"frame": [300, 300], "tile": [100, 100], "overlap": 1.5},
        {"frame": [300, 300], "tile": [100, 100]},
        None,
    ],
)
def test_what_is_no_grid_is_refused(value: object) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        TileGrid.from_json(value)
