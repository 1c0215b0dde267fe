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
"""

import numpy as np
from numpy.typing import NDArray

from runtime.images.opencv import opencv
from runtime.result import Result, result_of

# Of positions, for export.model.score too; "paper" takes the single highest.
TOP_SHARES: dict[str, tuple[float, ...]] = {
    "place_deviation": (0.003, 0.01, 0.03),
    "tap_deviation": (0.003, 0.01, 0.03),
    "deviation": (0.01,),
    "paper": (),
}


def result_inside(result: Result, inside: NDArray[np.bool_], score: str) -> Result:
    """Return `result` with map and score of the positions in `inside` (H, W) of the map, and the verdict they give.

    Outside, the map is 0. `score` is the sidecar's kind.
    """
    counts = _counts(inside.size, score)
    kept = np.where(inside, result.anomaly_map, np.float32(0))
    whole = _top_means(result.anomaly_map, counts)
    image_score = result.image_score * min(1.0, _top_means(kept, counts) / whole) if whole != 0 else result.image_score
    judged = result_of(kept, image_score, (result.threshold, result.map_threshold), result.latency_ms)
    return judged.without_verdict(result.reason) if result.verdict == "none" else judged


def top_count(positions: int, score: str) -> int:
    """Return how many of a map's `positions` decide the image score of the kind `score`."""
    return max(_counts(positions, score))


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
