"""What a data folder offers, whatever its layout: good images to train on, labelled images to test on."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from export.model.cflow import IMAGENET_MEAN, IMAGENET_STD
from runtime.files import sha256_of
from train.masks import MaskSlice, load_mask
from train.synthetic import RECORD_NAME

GOOD = "good"


@dataclass(frozen=True)
class LabelledImage:
    """A test image; `mask` is None for a good image and where no ground truth is given."""

    path: Path
    defect: str
    mask: Path | MaskSlice | None

    @property
    def anomalous(self) -> bool:
        """Whether the image shows a defect."""
        return self.defect != GOOD


@dataclass(frozen=True)
class Dataset:
    """Good images to train on and labelled images to test on (maybe none), all below `root`.

    `mean` and `std` (of RGB in [0, 1]) are what the paper normalises such images with, `paper_size` is the
    (height, width) in pixels that it trains on, where it says so. `part` is what of `root` this is, if not all.
    """

    root: Path
    train: tuple[Path, ...]
    test: tuple[LabelledImage, ...]
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    paper_size: tuple[int, int] | None = None
    part: str = ""

    @property
    def origin(self) -> str:
        """Where the images come from in a word: our renderer, or the folder's name."""
        if (self.root / RECORD_NAME).is_file():
            return "train.synthetic"
        name = self.root.resolve().name
        return f"{name}/{self.part}" if self.part else name

    def sha256(self) -> str:
        """Hash the training images' names and bytes, so that a checkpoint can say what it was trained on."""
        digest = hashlib.sha256()
        for path in self.train:
            digest.update(path.relative_to(self.root).as_posix().encode() + b"\0")
            digest.update(bytes.fromhex(sha256_of(path)))
        return digest.hexdigest()


def read_mask(image: LabelledImage, size: tuple[int, int]) -> NDArray[np.bool_] | None:
    """Return an image's ground truth at `size` = (height, width), by the nearest pixel; None where it is unknown.

    Raises `UserError` naming a mask that cannot be read.
    """
    if not image.anomalous:
        return np.zeros(size, dtype=bool)
    if image.mask is None:
        return None
    mask = Image.fromarray(load_mask(image.mask))
    return np.array(mask.resize((size[1], size[0]), Image.Resampling.NEAREST))
