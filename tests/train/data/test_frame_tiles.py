"""Tiles of frames by index: they are the frame's own pixels, each frame is decoded once, and none is kept in memory."""

import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from export.model.cflow import ModelConfig
from runtime.common.errors import UserError
from runtime.images.preprocess import PLAIN, read_image, resize
from runtime.images.tiles import TileGrid
from tests.support.small_disk import small_disk
from train.data import disk_arrays
from train.data.disk_arrays import DiskArrays
from train.data.frame_tiles import TileCache, open_inputs

GRID = TileGrid((96, 150), (64, 64), 16)


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    random, found = np.random.default_rng(0), []
    for index, size in enumerate([(96, 150), (96, 150), (120, 200)]):  # the last one is resized
        found.append(tmp_path / f"{index}.png")
        Image.fromarray(random.integers(0, 256, (*size, 3), dtype=np.uint8)).save(found[-1])
    return found


@pytest.mark.parametrize("on_disk", [True, False])
def test_a_tile_is_what_the_grid_cuts_from_the_frame_and_a_frame_is_decoded_once(
    paths: list[Path], tmp_path: Path, on_disk: bool
) -> None:
    cache = TileCache(paths, GRID, scratch=tmp_path / "new" if on_disk else None)
    decoded = Counter[int]()
    cache.look = lambda number, frame: decoded.update([number])
    expected = np.concatenate([GRID.cut(resize(read_image(path), GRID.frame)) for path in paths])
    assert len(cache) == len(expected) == 3 * GRID.count == 18 and cache.per_image == 6
    assert np.array_equal(cache.batch(range(18)), expected)
    assert decoded == {0: 1, 1: 1, 2: 1}
    order = np.random.default_rng(1).permutation(18).tolist()
    assert np.array_equal(cache.batch(order), expected[order])
    assert (max(decoded.values()) == 1) == on_disk  # in memory there is the newest alone
    assert cache.corners([7, 17]) == [list(GRID.corners())[1], list(GRID.corners())[5]]
    places = cache.places(range(18))
    assert [(GRID.tops[row], GRID.lefts[column]) for row, column in places] == cache.corners(range(18))


def test_tiles_that_stand_for_all_come_from_every_frame_and_every_place() -> None:
    for frames in (1, 2, 5, 63, 64, 65, 127, 300):
        for grid in (GRID, TileGrid((512, 512), (64, 64), 16), TileGrid((64, 64), (64, 64), 0)):
            cache = TileCache([Path(str(index)) for index in range(frames)], grid)
            chosen = cache.spread(64)
            assert len(set(chosen)) == len(chosen) == min(64, len(cache))
            assert max(chosen) < len(cache)
            assert len({index // grid.count for index in chosen}) == min(frames, 64)
            of_places = Counter(index % grid.count for index in chosen)
            assert len(of_places) == min(grid.count, 64) or len(chosen) == len(cache)


def test_only_a_frame_at_a_time_is_in_memory_however_many_and_large_they_are(tmp_path: Path) -> None:
    side, count = 1024, 12
    for index in range(count):
        Image.fromarray(np.full((side, side), index, np.uint8)).save(tmp_path / f"{index}.png")
    paths = [tmp_path / f"{index}.png" for index in range(count)]
    cache = TileCache(paths, TileGrid((side, side), (64, 64), 0), scratch=tmp_path)
    of_frame = 3 * side * side
    tracemalloc.start()
    try:
        seen = {int(cache.image(index)[0, 0, 0]) for index in range(0, len(cache), 37)}
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert seen == set(range(count))
    assert held < of_frame / 4  # tables of the decoder, no frame
    assert peak < 4 * of_frame  # one being decoded, in grey and in colour, and on its way to the disk


def test_frames_on_disk_have_no_name_and_go_with_the_process(paths: list[Path], tmp_path: Path) -> None:
    folder = tmp_path / "scratch"
    cache = TileCache(paths, GRID, scratch=folder)
    cache.image(0)
    assert list(folder.iterdir()) == []


def test_a_disk_without_room_is_refused_before_and_told_of_after(
    paths: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 1000})
    with monkeypatch.context() as patch:
        patch.setattr(disk_arrays.shutil, "disk_usage", lambda _: usage)
        with pytest.raises(UserError, match=r"3 frames of 96x150 need 0\.0 GB of disk.*free some"):
            TileCache(paths, GRID, scratch=tmp_path)
    with small_disk(tmp_path / "small") as folder, monkeypatch.context() as patch:
        patch.setattr(disk_arrays.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1 << 40}))  # it was there
        arrays = DiskArrays((8, 1 << 18), np.uint8, folder, "frames", "free some of it")  # 2 MB on a disk of 1
        with pytest.raises(UserError, match=r"frames must fit the disk of .*No space left"):
            for index in range(8):
                arrays.store(index, np.ones(1 << 18, np.uint8))


def test_a_detector_without_tiles_sees_whole_images(paths: list[Path]) -> None:
    config = ModelConfig("resnet18", ("layer1",), (64, 96))
    whole = open_inputs(config, paths, PLAIN)
    assert len(whole) == 3 and whole.per_image == 1 and whole.corners([0]) == [] and whole.places([0]) is None
    assert np.array_equal(whole.image(2), resize(read_image(paths[2]), (64, 96)))


def test_arrays_on_disk_are_those_that_were_stored(tmp_path: Path) -> None:
    arrays = DiskArrays((3, 4, 5), np.float32, tmp_path, "maps", "")
    expected = np.random.default_rng(0).random((3, 4, 5)).astype(np.float32)
    for index in (2, 0, 1):
        arrays.store(index, expected[index])
    assert np.array_equal(arrays.whole, expected)
    assert not arrays.whole.flags.writeable
