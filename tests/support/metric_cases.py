"""Maps and masks that figures are compared on: random ones, and what a wrong implementation stumbles over.

Made with `RandomState`, whose streams never change, so that another environment makes the same bytes.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

RECORD = Path(__file__).with_name("recorded_anomalib_metrics.json")  # what anomalib says of them

SIZE = (200, 250)  # 4 good images: 200,000 pixels, so that both bounds of AUPIMO are rates that a cut can have

Case = tuple[np.ndarray, np.ndarray]  # maps (N, H, W) float32, masks (N, H, W) bool


def _masks(good: int, boxes: list[list[tuple[int, int, int, int]]], size: tuple[int, int] = SIZE) -> np.ndarray:
    """Return `good` empty masks and one more for each list of (top, left, height, width)."""
    masks = np.zeros((good + len(boxes), *size), bool)
    for mask, places in zip(masks[good:], boxes, strict=True):
        for top, left, height, width in places:
            mask[top : top + height, left : left + width] = True
    return masks


SPREAD = [[(10, 10, 20, 30)], [(0, 0, 3, 3), (100, 120, 60, 50)], [(150, 5, 1, 40), (90, 240, 30, 10), (5, 100, 2, 2)]]


def random_case(seed: int, strength: float, good: int = 4) -> Case:
    """Return maps with an exponential tail that see their defects by `strength`, each somewhat differently."""
    rng = np.random.RandomState(seed)
    masks = _masks(good, SPREAD)
    maps = rng.exponential(size=masks.shape) + masks * strength * rng.uniform(0.3, 1.7, (len(masks), 1, 1))
    return maps.astype(np.float32), masks


def levels_case(levels: int) -> Case:
    maps, masks = random_case(11, 6)
    return np.floor(np.minimum(maps / 16, 1) * levels).astype(np.float32) / levels, masks


def perfect_case(good: int) -> Case:
    maps, masks = random_case(12, 0, good)
    return (np.minimum(maps, 5) + 10 * masks).astype(np.float32), masks


def inverted_case() -> Case:
    maps, masks = random_case(13, 8)
    return (-maps).astype(np.float32), masks


def constant_case() -> Case:
    masks = _masks(4, SPREAD)
    return np.ones(masks.shape, np.float32), masks


def diagonal_case() -> Case:
    """Regions that touch at corners alone, one that fills its image but for a pixel, regions of one pixel."""
    maps, _ = random_case(14, 0)
    masks = np.zeros(maps.shape, bool)
    for step in range(20):
        masks[4, 30 + step, 40 + step] = masks[4, 90, 7 * step] = True
    masks[5] = True
    masks[5, 0, 0] = False
    masks[6, 199, 249] = True
    return (maps + 3 * masks).astype(np.float32), masks


def outlier_case() -> Case:
    """One good pixel scores a thousand times all others: evenly spaced cuts all lie above them."""
    maps, masks = random_case(15, 8)
    maps[0, 3, 3] = 2e4
    return maps, masks


CASES: dict[str, Callable[[], Case]] = {
    "random, weak": lambda: random_case(1, 2),
    "random, middling": lambda: random_case(2, 6),
    "random, strong": lambda: random_case(3, 12),
    "random, two million good pixels": lambda: random_case(4, 8, good=40),
    "a thousand levels": lambda: levels_case(1000),
    "five levels": lambda: levels_case(5),
    "perfect": lambda: perfect_case(4),
    "perfect, few good pixels": lambda: perfect_case(3),
    "inverted": inverted_case,
    "constant": constant_case,
    "corners and single pixels": diagonal_case,
    "one outlier": outlier_case,
}


def digest(case: Case) -> str:
    """Return a hash of a case's bytes: that two environments compute on the same numbers."""
    return hashlib.sha256(case[0].tobytes() + case[1].tobytes()).hexdigest()
