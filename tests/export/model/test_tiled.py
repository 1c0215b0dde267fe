"""A tiled detector: one tile is the plain detector, and a tile is judged by its place in the frame."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from export.model.cflow import CFlow, DetectorModule, ModelConfig
from export.model.flow import position_code
from export.model.tiled import TiledDetector
from runtime.images.tiles import TileGrid

CONFIG = ModelConfig("resnet18", ("layer1", "layer2"), (64, 64), coupling_blocks=2, score="deviation", seed=1)
CONSTANTS = torch.tensor([[-2.0, -1.5], [0.7, 0.4]])


def _detector(tiles: TileGrid) -> TiledDetector:
    config = replace(CONFIG, tiles=tiles)
    return TiledDetector(DetectorModule(CFlow(config).eval(), CONSTANTS)).eval()


def _frames(*size: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8))


@torch.no_grad()
def test_a_frame_of_one_tile_is_judged_as_without_tiles() -> None:
    detector, frames = _detector(TileGrid((64, 64), (64, 64), 16)), _frames(2, 64, 64)
    maps, scores = detector(frames)
    plain = CFlow(CONFIG).eval()
    plain.load_state_dict(detector.detector.model.state_dict())
    plain_maps, plain_scores = DetectorModule(plain, CONSTANTS)(frames)
    torch.testing.assert_close(maps, plain_maps)
    torch.testing.assert_close(scores, plain_scores)


@torch.no_grad()
def test_the_score_is_the_largest_of_the_tiles_and_the_map_is_theirs() -> None:
    grid = TileGrid((100, 150), (64, 64), 16)
    detector, frame = _detector(grid), _frames(1, 100, 150)
    maps, scores = detector(frame)
    tiles = torch.from_numpy(grid.cut(frame[0].numpy()))
    model = detector.detector.model
    one_by_one = [
        detector.detector.judge(model.log_likelihoods(tile[None], [corner]))
        for tile, corner in zip(tiles, grid.corners(), strict=True)
    ]
    largest = max(score.item() for _, score in one_by_one)
    assert scores.item() == pytest.approx(largest, abs=1e-5)  # products of another batch round otherwise
    np.testing.assert_allclose(maps[0, :40, :40], one_by_one[0][0][0, :40, :40], atol=1e-5)


def test_a_tile_has_the_position_code_of_its_place_in_the_frame() -> None:
    model = CFlow(replace(CONFIG, tiles=TileGrid((192, 256), (64, 64), 16)))
    whole = position_code(192 // 4, 256 // 4)  # of layer1, stride 4
    torch.testing.assert_close(model.code_at(0, (32, 48)), whole[8 : 8 + 16, 12 : 12 + 16], rtol=0, atol=1e-6)
    assert model.code_at(0, (33, 48)).allclose(position_code(16, 16, origin=(33 / 4, 12)))
