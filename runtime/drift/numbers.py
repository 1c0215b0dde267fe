"""What is watched of a picture: numbers that do not move each other, so that a change says what it is a change of.

Half of the light halves the mean and the deviation of grey: so contrast is the deviation by the mean. A part moved in
the picture leaves all but its place alone. Training and the line call the same function on the same pixels, as the
engine gets them; compression alone is measured before the resize, which hides its blocks.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from runtime.images.fast_resize import resize_fast
from runtime.images.mask import mask_at
from runtime.images.opencv import opencv
from runtime.images.pixels import Image8, every_nth

SIDE = 256  # pixels of the longer side of what is measured: every n-th of the engine's
ROWS = 128  # of the frame that compression is looked for in
BLOCK = 8  # pixels that JPEG and video encode together
DARK = 16.0  # grey levels: what is added before a logarithm, or noise in the dark would be structure


class Number(NamedTuple):
    """What a number is called and shown as: `shown` turns it into the unit of `text`, a format.

    A change of less than `least` is none.
    """

    name: str
    text: str
    least: float
    is_log: bool = True

    def shown(self, value: float) -> float:
        """Return `value` in the unit that people read."""
        return math.exp(value) if self.is_log else value


NUMBERS = {
    "light": Number("light", "{:.1f} grey levels", 0.01),
    "contrast": Number("contrast", "{:.3f} of the light", 0.015),
    "focus": Number("focus", "{:.3f} fine detail by contrast", 0.03),
    "red": Number("colour", "{:.2%} red of all light", 0.0007, is_log=False),
    "blue": Number("colour", "{:.2%} blue of all light", 0.0007, is_log=False),
    "right": Number("position", "{:.2%} of the width", 0.004, is_log=False),
    "down": Number("position", "{:.2%} of the height", 0.004, is_log=False),
    "compression": Number("compression", "{:.2f} steps between blocks by others", 0.03),
}
SCORE = Number("score", "{:.3f} image score", 0.001, is_log=False)
TAP = "tap "


def number_of(name: str) -> Number:
    """Return what the number `name` is: of the picture, the score, or what a tap says."""
    if name.startswith(TAP):
        return Number(name, "{:.4f} roughness of its map", 1e-5, is_log=False)
    return NUMBERS.get(name, SCORE)


def numbers_of(judged: Image8, size: tuple[int, int], inside: NDArray[np.bool_] | None = None) -> dict[str, float]:
    """Return the numbers of `NUMBERS` of a judged frame (H, W, 3), for an engine of `size` (height, width).

    With `inside` (H, W), of what is inside alone. They are those of the frame after region and rotation.
    """
    cv2 = opencv()
    pixels = judged if judged.shape[:2] == size else resize_fast(judged, size, 1)  # by this thread alone
    pixels = np.ascontiguousarray(every_nth(pixels, SIDE))
    mask = None if inside is None else _well_inside(mask_at(inside, size))
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    mean, deviation = (float(value[0, 0]) for value in cv2.meanStdDev(grey, mask=mask))
    measured = grey.size if mask is None else max(1, cv2.countNonZero(mask))
    edges = cv2.norm(cv2.Laplacian(grey, cv2.CV_16S), cv2.NORM_L1, mask=mask) / measured
    red, green, blue, _ = cv2.mean(pixels, mask=mask)
    right, down = _middle(grey, mask)
    return {
        "light": math.log(mean + 0.1),
        "contrast": math.log((deviation + 0.01) / (mean + 0.1)),
        "focus": math.log((edges + 0.01) / (deviation + 0.1)),
        "red": red / max(red + green + blue, 0.1),
        "blue": blue / max(red + green + blue, 0.1),
        "right": right,
        "down": down,
        "compression": blockiness(judged, inside),
    }


def _well_inside(inside: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return where no neighbour is outside: 1, else 0, at the pixels that are measured."""
    inner = opencv().erode(inside.astype(np.uint8), np.ones((3, 3), np.uint8), borderValue=1)
    return np.ascontiguousarray(every_nth(inner, SIDE))


def _middle(grey: NDArray[np.uint8], mask: NDArray[np.uint8] | None) -> tuple[float, float]:
    """Return where the middle of all structure is, in shares of width and height; a lamp's gradient is no structure."""
    cv2 = opencv()
    logs = np.log(np.arange(256) + DARK).astype(np.float32)[grey]
    steps = cv2.magnitude(cv2.Sobel(logs, cv2.CV_32F, 1, 0), cv2.Sobel(logs, cv2.CV_32F, 0, 1))
    if mask is not None:
        steps *= mask
    total = float(steps.sum())
    if total <= 0:
        return 0.5, 0.5
    height, width = grey.shape
    columns, rows = steps.sum(0, dtype=np.float64), steps.sum(1, dtype=np.float64)
    right = float(columns @ (np.arange(width) + 0.5)) / total / width
    return right, float(rows @ (np.arange(height) + 0.5)) / total / height


def blockiness(judged: Image8, inside: NDArray[np.bool_] | None = None) -> float:
    """Return the logarithm of how much larger steps between columns are every `BLOCK` pixels than elsewhere.

    Wherever the blocks begin: a region of interest may cut them. With `inside` (H, W), of what is inside alone.
    """
    every = -(-judged.shape[0] // ROWS)
    lines = judged[::every, :, 1].astype(np.int16)
    if lines.shape[1] < 4 * BLOCK:
        return 0.0
    steps = np.diff(lines, axis=1)
    bends = np.abs(2 * steps[:, 1:-1] - steps[:, :-2] - steps[:, 2:])
    if inside is None:
        sums, counts = bends.sum(0), np.full(bends.shape[1], len(bends))
    else:
        seen = inside[::every]
        taken = seen[:, :-3] & seen[:, 1:-2] & seen[:, 2:-1] & seen[:, 3:]
        sums, counts = (bends * taken).sum(0), taken.sum(0)
    whole = _by_place(sums) / np.maximum(1, _by_place(counts))
    return math.log((float(whole.max()) + 0.1) / (float(np.median(whole)) + 0.1))


def _by_place(columns: NDArray[np.integer[Any]]) -> NDArray[np.integer[Any]]:
    """Return the sums over every `BLOCK`-th column, (BLOCK,)."""
    whole: NDArray[np.integer[Any]] = columns[: len(columns) // BLOCK * BLOCK].reshape(-1, BLOCK).sum(0)
    return whole
