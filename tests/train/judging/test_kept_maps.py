"""Maps and masks in memory or on disk: the same figures, and a set on disk holds none of them in memory."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from runtime.common.errors import UserError
from train.data import disk_arrays
from train.judging import kept_maps
from train.judging.kept_maps import KeptMaps, KeptMasks

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("limit", [1 << 30, 0])
def test_maps_come_back_in_their_order(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    monkeypatch.setattr(kept_maps, "IN_MEMORY", limit)
    expected = RANDOM.random((5, 6, 7)).astype(np.float32)
    kept = KeptMaps(5, (6, 7))
    assert [kept.take(each, score) for each, score in zip(expected, range(5), strict=True)] == list(range(5))
    assert np.array_equal(kept.maps, expected) and isinstance(kept.maps, np.memmap) == (limit == 0)


def test_masks_come_back_as_they_are() -> None:
    masks = RANDOM.random((3, 6, 7)) > 0.5
    for on_disk in (False, True):
        keep = KeptMasks(3, (6, 7), on_disk)
        kept = [keep(mask) for mask in masks]
        assert all(each.dtype == np.bool_ for each in kept)
        assert np.array_equal(np.stack(kept), masks) and isinstance(kept[0], np.memmap) == on_disk
    assert KeptMasks(0, (6, 7), on_disk=True)._disk is None  # a set without defects


def test_no_map_on_disk_is_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_maps, "IN_MEMORY", 0)
    tracemalloc.start()
    try:
        kept = KeptMaps(20, (500, 500))
        for value in range(20):
            kept.take(np.full((500, 500), value, np.float32), 0.0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3 * 4 * 500 * 500 and kept.maps[7, 3, 3] == 7


def test_a_disk_without_room_is_refused_with_what_mends_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(kept_maps, "IN_MEMORY", 0)
    monkeypatch.setattr(disk_arrays.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10}))
    with pytest.raises(UserError, match=r"20 maps of 500x500 need .* TMPDIR"):
        KeptMaps(20, (500, 500))
