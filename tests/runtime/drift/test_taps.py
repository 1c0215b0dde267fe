"""A tap's roughness is told from the sum of all taps' maps as exactly as from its own."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from runtime.drift.taps import roughness

GRIDS = {"layer1": 64, "layer2": 32, "layer3": 16}


def _map(grids: dict[str, int], size: int, seed: int = 0) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return a map as the engine makes it, and each tap's part of it, of grids with random values."""
    random = np.random.default_rng(seed)
    parts = {}
    for name, rows in grids.items():
        small = torch.from_numpy(random.random((1, 1, rows, rows)).astype(np.float32))
        parts[name] = F.interpolate(small, size=(size, size), mode="bilinear", align_corners=True)[0, 0].numpy()
    return np.sum(list(parts.values()), 0), parts


@pytest.mark.parametrize("grids", [GRIDS, {"a": 32, "b": 16, "c": 8}, {"a": 80, "b": 40, "c": 20}])
def test_the_sum_says_of_each_tap_what_its_own_map_says(grids: dict[str, int]):
    whole, parts = _map(grids, 4 * max(grids.values()))
    for name, part in parts.items():
        alone = roughness(part, grids)
        assert roughness(whole, grids)[f"tap {name}"] == pytest.approx(alone[f"tap {name}"], rel=1e-3)
        assert all(value < 1e-4 for other, value in alone.items() if other != f"tap {name}")


def test_one_tap_that_changes_moves_its_number_alone():
    whole, parts = _map(GRIDS, 256)
    before, after = roughness(whole, GRIDS), roughness(whole + parts["layer2"], GRIDS)
    assert after["tap layer2"] == pytest.approx(2 * before["tap layer2"], rel=1e-3)
    assert [after[name] / before[name] for name in ("tap layer1", "tap layer3")] == pytest.approx([1, 1], rel=1e-3)


def test_taps_on_one_grid_are_told_together():
    assert set(roughness(_map({"a": 32, "c": 16}, 128)[0], {"a": 32, "b": 32, "c": 16})) == {"tap a+b", "tap c"}


def test_a_grid_whose_lines_are_all_another_ones_is_left_out():
    assert "tap fine" in roughness(np.zeros((64, 64), np.float32), {"fine": 9, "coarse": 3})
    assert "tap coarse" not in roughness(np.zeros((64, 64), np.float32), {"fine": 9, "coarse": 3})
