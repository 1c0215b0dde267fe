"""A tiled detector as a module: the frame is cut, its tiles are judged where they lie, their maps are one map again."""

import torch
from torch import Tensor, nn

from export.model.cflow import DetectorModule

TILES_AT_ONCE = 8  # of a frame: bounds the memory of a large one


class TiledDetector(nn.Module):
    """The engine's contract for a detector with `tiles`: uint8 frames in, (anomaly_map, image_score) out.

    A tile has its own score, as a frame without tiles has; the frame's is the largest of its tiles', so that a defect
    of a few pixels counts as much in a frame of a hundred tiles as in one of four. The reference of an exported graph.
    """

    def __init__(self, detector: DetectorModule) -> None:
        super().__init__()
        assert detector.model.config.tiles is not None
        self.detector, self.grid = detector, detector.model.config.tiles

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Map frames (B, H, W, 3) uint8 RGB to anomaly_map (B, H, W) and image_score (B,)."""
        judged = [self._judge(frame) for frame in frames]
        return torch.stack([scores for scores, _ in judged]), torch.stack([score for _, score in judged])

    def _judge(self, frame: Tensor) -> tuple[Tensor, Tensor]:
        corners, (height, width) = list(self.grid.corners()), self.grid.tile
        batches = []
        for start in range(0, len(corners), TILES_AT_ONCE):
            some = corners[start : start + TILES_AT_ONCE]
            tiles = torch.stack([frame[top : top + height, left : left + width] for top, left in some])
            batches.append(self.detector.model.log_likelihoods(tiles, some))
        return self.judge([torch.cat(tap) for tap in zip(*batches, strict=True)])

    def judge(self, log_likelihoods: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the map (H, W) and the score of a frame, from its tiles' log-likelihoods, (count, h, w) per tap."""
        maps, scores = [], []
        for some in zip(*(torch.split(tap, TILES_AT_ONCE) for tap in log_likelihoods), strict=True):
            tile_maps, tile_scores = self.detector.judge(list(some))
            maps.append(tile_maps)
            scores.append(tile_scores)
        blended = self.grid.blend(torch.cat(maps).cpu().numpy())
        return torch.from_numpy(blended).to(maps[0]), torch.cat(scores).max()
