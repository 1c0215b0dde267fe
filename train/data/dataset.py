"""What a data folder offers, whatever its layout: good images to train on, labelled images to test on."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from export.images.labelled import LabelledImage
from runtime.common.files import printable, sha256_of

RECORD_NAME = "synthetic.json"  # what `train.synthetic` leaves beside the images that it drew


@dataclass(frozen=True)
class Dataset:
    """Good images to train on and labelled images to test on (maybe none), below `root` but for what a list names.

    `mean` and `std` (of RGB in [0, 1]) are what the paper normalises such images with, empty where that is what the
    encoder's weights were trained with. `paper_size` is the (height, width) in pixels that it trains on, where it says
    so. `part` is what of `root` this is, if not all. `added` are more good images to train on, from elsewhere:
    frames of the line that people called good.
    """

    root: Path
    train: tuple[Path, ...]
    test: tuple[LabelledImage, ...]
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    paper_size: tuple[int, int] | None = None
    part: str = ""
    added: tuple[Path, ...] = ()

    @property
    def good(self) -> tuple[Path, ...]:
        """All good images to train on."""
        return (*self.train, *self.added)

    @property
    def origin(self) -> str:
        """Where the images come from in a word: our renderer, or the folder's name."""
        if (self.root / RECORD_NAME).is_file():
            return "train.synthetic"
        name = printable(self.root.resolve().name)
        return f"{name}/{self.part}" if self.part else name

    def sha256(self) -> str:
        """Hash the training images' names and bytes, so that a checkpoint can say what it was trained on."""
        digest = hashlib.sha256()
        for path in self.good:
            inside = path.is_relative_to(self.root)  # a list may name others: where they lie says nothing of them
            name = path.relative_to(self.root).as_posix() if inside else path.name
            digest.update(os.fsencode(name) + b"\0")
            digest.update(bytes.fromhex(sha256_of(path)))
        return digest.hexdigest()
