"""A tiled detector as a module: the frame is cut, its tiles are judged where they lie, their maps are one map again."""

import torch
from torch import Tensor, nn

from export.model.cflow import CFlow, DetectorModule
from export.model.flow import log_likelihood, position_code

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


def module_of(model: CFlow, constants: Tensor) -> nn.Module:
    """Return what judges the frames of a detector, of a tiled one or another, in eval mode."""
    detector = DetectorModule(model, constants)
    return (detector if model.config.tiles is None else TiledDetector(detector)).eval()


class TileNetwork(nn.Module):
    """What one tile of a detector with `tiles` goes through, for the exporter: its place is an input.

    A place is the numbers of its row and its column of tiles, so that a tile's condition is two rows of two tables.
    """

    def __init__(self, detector: DetectorModule) -> None:
        super().__init__()
        self.model, self.detector = detector.model, detector
        config = detector.model.config
        assert config.tiles is not None
        for index, ((_, height, width), stride) in enumerate(zip(config.tap_sizes, config.tap_strides, strict=True)):
            down = [position_code(height, 1, origin=(top / stride, 0)) for top in config.tiles.tops]
            across = [position_code(1, width, origin=(0, left / stride)) for left in config.tiles.lefts]
            half = down[0].shape[2] // 2  # the columns' part comes first
            rows, columns = torch.stack(down)[:, :, 0, half:], torch.stack(across)[:, 0, :, :half]
            self.register_buffer(f"rows{index}", rows.to(self.model.mean), persistent=False)
            self.register_buffer(f"columns{index}", columns.to(self.model.mean), persistent=False)

    def forward(self, tiles: Tensor, tile_row: Tensor, tile_column: Tensor) -> tuple[Tensor, Tensor]:
        """Map tiles (B, h, w, 3) uint8 RGB, each of the row and column (B,) int64, to maps (B, h, w), scores (B,)."""
        maps = []
        for index, (tap, decoder) in enumerate(zip(self.model.features(tiles), self.model.decoders, strict=True)):
            fibers = tap.permute(0, 2, 3, 1).reshape(-1, tap.shape[1])
            code = self._code(index, tile_row, tile_column) if self.model.config.conditional else None
            _, height, width = self.model.config.tap_sizes[index]
            maps.append(log_likelihood(*decoder(fibers, code)).reshape(-1, height, width))
        return self.detector.judge(maps)

    def _code(self, index: int, tile_row: Tensor, tile_column: Tensor) -> Tensor:
        """Return a tap's condition vectors, (B·h·w, C)."""
        _, height, width = self.model.config.tap_sizes[index]
        rows = self.get_buffer(f"rows{index}").index_select(0, tile_row)
        columns = self.get_buffer(f"columns{index}").index_select(0, tile_column)
        across, down = columns[:, None].expand(-1, height, -1, -1), rows[:, :, None].expand(-1, -1, width, -1)
        return torch.cat([across, down], dim=3).reshape(-1, rows.shape[2] + columns.shape[2])
