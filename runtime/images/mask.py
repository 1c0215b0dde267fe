"""A result held to the part of the picture that is to be inspected.

The engine's image score is made inside its graph, over the whole map, so it has to be made anew here. "paper" is the
map's maximum and is exact. "deviation" is the mean of the top 1 % of positions on the grid of the finest tap, of which
the map is an interpolation: its top 1 % of pixels comes to the same within the grid's coarseness (on 20 good screws at
256x256, taps layer1-3: 0.996 of the engine's score, standard deviation 0.004). "tap_deviation" is a
weighted mean of such means, over 0.3, 1 and 3 % of each tap's positions, "place_deviation" of theirs and those of the
taps' sum; the map, which is that sum, stands for them all. What remains of that cancels in

    masked score = engine's score · T(map inside) / T(map),    T = mean of the top n pixels, outside counting as 0,
                                                               averaged over the shares that the score has

so that a mask that is all white changes nothing, none ever raises a score, and a defect inside keeps its score: n is
a share of the whole map, as when the threshold was chosen.

A frame cut into tiles has the largest score of its tiles. There T is made of each tile's piece of the map, and the
largest of them counts, before and after.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from runtime.images.opencv import opencv
from runtime.images.tiles import Pixel, TileGrid
from runtime.result import Result, result_of

# Of positions, for export.model.score too; "paper" takes the single highest.
TOP_SHARES: dict[str, tuple[float, ...]] = {
    "place_deviation": (0.003, 0.01, 0.03),
    "tap_deviation": (0.003, 0.01, 0.03),
    "deviation": (0.01,),
    "paper": (),
}


@dataclass(frozen=True)
class Scoring:
    """How an image's score comes about: the sidecar's `kind` of score, of each of `tiles` or, None, of the frame."""

    kind: str
    tiles: TileGrid | None = None

    def pieces(self, pixels: NDArray[Pixel]) -> Iterator[NDArray[Pixel]]:
        """Yield the pieces of a map (H, W) that have a score of their own, as views."""
        if self.tiles is None:
            yield pixels
        else:
            yield from self.tiles.pieces(pixels)

    def top_count(self, size: tuple[int, int]) -> int:
        """Return how many positions of a map of `size` (H, W), or of a tile's, decide the score."""
        height, width = size if self.tiles is None else self.tiles.tile
        return max(_counts(height * width, self.kind))

    def most_inside(self, inside: NDArray[np.bool_]) -> int:
        """Return how many positions `inside` (H, W) leaves of the map, or of the tile that it leaves most of."""
        return max(int(np.count_nonzero(piece)) for piece in self.pieces(inside))


def result_inside(result: Result, inside: NDArray[np.bool_], scoring: Scoring) -> Result:
    """Return `result` with map and score of the positions in `inside` (H, W) of the map, and the verdict they give.

    Outside, the map is 0.
    """
    kept = np.where(inside, result.anomaly_map, np.float32(0))
    whole = _highest(result.anomaly_map, scoring)
    image_score = result.image_score * min(1.0, _highest(kept, scoring) / whole) if whole != 0 else result.image_score
    judged = result_of(kept, image_score, (result.threshold, result.map_threshold), result.latency_ms)
    return judged.without_verdict(result.reason) if result.verdict == "none" else judged


def _highest(values: NDArray[np.float32], scoring: Scoring) -> float:
    """Return T of a map, the largest of its pieces'; one whose highest value is less than that need not be sorted."""
    pieces = sorted(((float(piece.max()), place, piece) for place, piece in enumerate(scoring.pieces(values))))
    found = -math.inf
    while pieces and pieces[-1][0] > found:
        _, _, piece = pieces.pop()
        found = max(found, _top_means(piece, _counts(piece.size, scoring.kind)))
    return found


def _counts(positions: int, score: str) -> list[int]:
    return [max(1, round(share * positions)) for share in TOP_SHARES[score]] or [1]


def _top_means(values: NDArray[np.float32], counts: list[int]) -> float:
    return sum(_top_mean(values, count) for count in counts) / len(counts)


def _top_mean(values: NDArray[np.float32], count: int) -> float:
    if count == 1:
        return float(values.max())
    flat = values.ravel()
    return float(np.partition(flat, flat.size - count)[flat.size - count :].mean(dtype=np.float64))


def mask_at(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Return `mask` at `size` (height, width): a position is inside where at least half of its area is."""
    cv2 = opencv()
    shrinks = size[0] <= mask.shape[0] and size[1] <= mask.shape[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    area = cv2.resize(mask.astype(np.float32), (size[1], size[0]), interpolation=method)
    inside: NDArray[np.bool_] = area >= 0.5 - 1e-6  # rounding of a sum of cells that makes up one half
    return inside
