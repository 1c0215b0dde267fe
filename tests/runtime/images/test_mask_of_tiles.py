"""A mask on the result of a real tiled detector: the host has one map and one score, the tiles had one each."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from export.model.cflow import CFlow, DetectorModule, ModelConfig
from export.model.tiled import TiledDetector
from runtime.images.mask import Scoring, result_inside
from runtime.images.tiles import TileGrid
from runtime.result import Result

GRID = TileGrid((160, 240), (64, 96), 20)
CONFIG = ModelConfig("resnet18", ("layer1", "layer2"), (64, 96), coupling_blocks=2, score="deviation", seed=1)
SEAMS = 0.02  # of a score: a tile's own map and the blended one differ near its edges


def _frame(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    frame = rng.integers(90, 140, (*GRID.frame, 3), dtype=np.uint8)
    for _ in range(6):  # defects, some of them on seams
        row, column = rng.integers(0, 150), rng.integers(0, 230)
        frame[row : row + 8, column : column + 8] = rng.integers(0, 256, 3)
    return frame


def _detector(seed: int) -> DetectorModule:
    """A detector with random weights whose scores are of a trained one's size: spread as a frame's likelihoods are."""
    torch.manual_seed(seed)
    model = CFlow(replace(CONFIG, tiles=GRID)).eval()
    tiles, corners = torch.from_numpy(GRID.cut(_frame(100 + seed))), list(GRID.corners())
    found = [torch.cat([one.flatten() for one in model.log_likelihoods(tiles, corners)[k : k + 1]]) for k in range(2)]
    highest = torch.stack([one.quantile(0.99) for one in found])
    return DetectorModule(model, torch.stack([highest, torch.stack([3 * one.std() for one in found])])).eval()


@pytest.mark.parametrize("seed", range(4))
@torch.no_grad()
def test_the_masked_score_is_that_of_the_tiles_judged_one_by_one(seed: int):
    of_tile = _detector(seed)
    model, detector = of_tile.model, TiledDetector(of_tile).eval()
    frame = _frame(seed)
    maps, scores = detector(torch.from_numpy(frame[None]))
    result = Result(maps[0].numpy(), float(scores[0]), "anomalous", 0.5, 0.5, {})
    own = [
        of_tile.judge(model.log_likelihoods(torch.from_numpy(tile[None]), [corner]))
        for tile, corner in zip(GRID.cut(frame), GRID.corners(), strict=True)
    ]
    rng = np.random.default_rng(seed)
    for _ in range(8):
        inside = np.ones(GRID.frame, bool)
        top, left = rng.integers(0, 100), rng.integers(0, 160)
        inside[top : top + 90, left : left + 140] = False
        pieces = GRID.cut(inside.astype(np.uint8)) > 0
        of_tiles = [replace(result, anomaly_map=one[0].numpy(), image_score=float(score)) for one, score in own]
        each = [result_inside(one, piece, Scoring("deviation")) for one, piece in zip(of_tiles, pieces, strict=True)]
        masked = result_inside(result, inside, Scoring("deviation", GRID))
        expected = max(one.image_score for one in each)
        assert masked.image_score == pytest.approx(expected, rel=SEAMS)
