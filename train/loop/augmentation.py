"""What an image batch of a pass holds, and how each of its images is varied as the line would vary it.

Rotations are the paper's, and are drawn as its schedule always drew them: all of a batch from one stream. Light, blur
and shift have a stream for each (seed, pass, image), so that nothing else changes what an image gets: not the batch,
not the process, not a run that was interrupted.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from train.data.frame_tiles import TileCache
from train.data.open import ImageCache, rotate
from train.loop.schedule import Recipe

STREAM = 1  # tells an image's stream from others of the same seed
BLUR_REACH = 4.0  # deviations: past them OpenCV's blur of 8 bits sees nothing
OFFSET = 0.25  # of the light's bound: what a lamp adds everywhere is less than what it multiplies


@dataclass(frozen=True)
class Part:
    """Rows and columns of an image: from `top` to before `bottom`, from `left` to before `right`."""

    top: int
    bottom: int
    left: int
    right: int

    def within(self, image: NDArray[np.uint8], margin: int) -> "Part":
        """Return it with a margin of so many pixels, as far as `image` (H, W, 3) goes; at least one pixel."""
        height, width = image.shape[:2]
        top, left = (min(max(0, first - margin), side - 1) for first, side in ((self.top, height), (self.left, width)))
        return Part(
            top, max(top + 1, min(height, self.bottom + margin)), left, max(left + 1, min(width, self.right + margin))
        )


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

    def of_part(self, image: NDArray[np.uint8], part: Part) -> NDArray[np.uint8]:
        """Return `part` of `image` varied as `of` does, to a grey level; no more of the image is read than it takes."""
        wide = part.within(image, math.ceil(BLUR_REACH * self.blur) + 1 if self.blur else 0)
        right, down = self.shift
        size = image.shape[:2]
        rows = (np.arange(wide.top, wide.bottom) - down).clip(0, size[0] - 1)
        columns = (np.arange(wide.left, wide.right) - right).clip(0, size[1] - 1)
        seen = Part(int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1)
        pixels = _rotated_part(image, seen, self.angle)[(rows - seen.top)[:, None], columns - seen.left]
        varied = replace(self, angle=0.0, shift=(0, 0)).of(pixels)
        return varied[part.top - wide.top :, part.left - wide.left :][
            : part.bottom - part.top, : part.right - part.left
        ]


AS_IT_IS = Variation()


def _rotated_part(image: NDArray[np.uint8], part: Part, degrees: float) -> NDArray[np.uint8]:
    """Return `part` of what `rotate` makes of `image`, from the part of it that it turns out of."""
    if not degrees:
        return np.asarray(image[part.top : part.bottom, part.left : part.right])
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    middle_x, middle_y = image.shape[1] / 2, image.shape[0] / 2
    corners = [(x - middle_x, y - middle_y) for x in (part.left, part.right) for y in (part.top, part.bottom)]
    xs = [cosine * x - sine * y + middle_x for x, y in corners]
    ys = [sine * x + cosine * y + middle_y for x, y in corners]
    source = Part(math.floor(min(ys)), math.ceil(max(ys)), math.floor(min(xs)), math.ceil(max(xs))).within(image, 2)
    x, y = part.left - middle_x, part.top - middle_y
    matrix = (
        cosine,
        -sine,
        cosine * x - sine * y + middle_x - source.left,
        sine,
        cosine,
        sine * x + cosine * y + middle_y - source.top,
    )
    cut = Image.fromarray(np.ascontiguousarray(image[source.top : source.bottom, source.left : source.right]))
    size = (part.right - part.left, part.bottom - part.top)
    return np.asarray(cut.transform(size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR))


def varied(images: ImageCache, index: int, variation: Variation) -> NDArray[np.uint8]:
    """Return an input of the network, (H, W, 3) uint8, varied: a tile is what is cut from its frame, varied whole."""
    if variation == AS_IT_IS or not isinstance(images, TileCache):
        return variation.of(images.image(index))
    [(top, left)], (height, width) = images.corners([index]), images.size
    return variation.of_part(images.frame(index // images.per_image), Part(top, top + height, left, left + width))


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
