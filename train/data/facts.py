"""What the training images are like as pictures, for the line to hold its frames against (`runtime.images.facts`)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from runtime.images.encoding import encoding_of
from runtime.images.facts import ImageFacts
from runtime.images.preprocess import ReadOptions, read_image

MOST = 200  # images, spread evenly: their extremes are known well enough, and they are read once more for this


def facts_of(paths: Sequence[Path], read: ReadOptions) -> ImageFacts:
    """Measure good images as they are in their files. Raises `ValueError` for none."""
    chosen = np.unique(np.linspace(0, len(paths) - 1, min(MOST, len(paths))).round().astype(int))
    encodings = [encoding_of(paths[index]) for index in chosen]
    return ImageFacts.of((read_image(paths[index], read) for index in chosen), encodings)
