"""What an image batch of a pass holds, and how each of its images is varied as the line would vary it.

Rotations are the paper's, and are drawn as its schedule always drew them: all of a batch from one stream. Light, blur
and shift have a stream for each (seed, pass, image), so that nothing else changes what an image gets: not the batch,
not the process, not a run that was interrupted.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from train.data.open import rotate
from train.loop.schedule import Recipe

STREAM = 1  # tells an image's stream from others of the same seed
OFFSET = 0.25  # of the light's bound: what a lamp adds everywhere is less than what it multiplies


@dataclass(frozen=True)
class Variation:
    """How one image is varied: degrees, pixels (right, down), deviation of a blur in pixels, gain, offset of 255."""

    angle: float = 0.0
    shift: tuple[int, int] = (0, 0)
    blur: float = 0.0
    gain: float = 1.0
    offset: float = 0.0

    def of(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return `image`, (H, W, 3) RGB, varied; the very same where nothing is to be done."""
        if self.angle:
            image = rotate(image, self.angle)
        if self.shift != (0, 0):
            image = _shifted(image, *self.shift)
        if self.blur:
            image = np.asarray(cv2.GaussianBlur(image, (0, 0), self.blur), np.uint8)
        if (self.gain, self.offset) != (1.0, 0.0):
            image = np.rint(image * self.gain + 255 * self.offset).clip(0, 255).astype(np.uint8)
        return image


AS_IT_IS = Variation()


def _shifted(image: NDArray[np.uint8], right: int, down: int) -> NDArray[np.uint8]:
    """Move an image; what it leaves is filled with its edge."""
    rows, columns = (np.arange(length) for length in image.shape[:2])
    rows, columns = (rows - down).clip(0, len(rows) - 1), (columns - right).clip(0, len(columns) - 1)
    return image[rows[:, None], columns]


def image_batches(recipe: Recipe, epoch: int, count: int) -> Iterator[tuple[list[int], list[Variation]]]:
    """Yield (indices, variations) of each batch of pass `epoch` over `count` images; all processes draw alike."""
    rng = np.random.default_rng([recipe.seed, epoch])
    order = rng.permutation(count).tolist()
    limit = recipe.rotation_degrees
    for start in range(0, count, recipe.batch):
        indices = order[start : start + recipe.batch]
        angles = rng.uniform(-limit, limit, len(indices)).tolist() if limit else [0.0] * len(indices)
        yield indices, [_draw(recipe, epoch, i, angle) for i, angle in zip(indices, angles, strict=True)]


def _draw(recipe: Recipe, epoch: int, image: int, angle: float) -> Variation:
    if not (recipe.light or recipe.blur or recipe.shift):
        return Variation(angle) if angle else AS_IT_IS
    rng = np.random.default_rng([recipe.seed, epoch, image, STREAM])
    gain, offset, right, down = rng.uniform(-1, 1, 4).tolist()  # all of them, so that one does not move another
    return Variation(
        angle,
        (round(right * recipe.shift), round(down * recipe.shift)),
        rng.uniform() * recipe.blur,
        1 + gain * recipe.light,
        OFFSET * offset * recipe.light,
    )
