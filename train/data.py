"""Images of an MVTec-style folder (train/good, test/*, ground_truth/*) or of a plain folder of good images."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from runtime.errors import UserError
from runtime.files import sha256_of
from runtime.preprocess import list_images, read_image, resize
from train.synthetic import RECORD_NAME

GOOD = "good"


@dataclass(frozen=True)
class LabelledImage:
    """A test image; `mask` is None for a good image and where no ground truth is given."""

    path: Path
    defect: str
    mask: Path | None

    @property
    def anomalous(self) -> bool:
        """Whether the image shows a defect."""
        return self.defect != GOOD


@dataclass(frozen=True)
class Dataset:
    """What a data folder offers: good images to train on, labelled images to test on (maybe none)."""

    root: Path
    train: tuple[Path, ...]
    test: tuple[LabelledImage, ...]

    @property
    def origin(self) -> str:
        """Where the images come from in a word: our renderer, or the folder's name."""
        return "train.synthetic" if (self.root / RECORD_NAME).is_file() else self.root.resolve().name

    def sha256(self) -> str:
        """Hash the training images' names and bytes, so that a checkpoint can say what it was trained on."""
        digest = hashlib.sha256()
        for path in self.train:
            digest.update(path.relative_to(self.root).as_posix().encode() + b"\0")
            digest.update(bytes.fromhex(sha256_of(path)))
        return digest.hexdigest()


def open_dataset(root: Path) -> Dataset:
    """Find the images under `root`.

    Raises `UserError` if there is no folder, neither a good image to train on nor any to test on, or two
    test images that share a mask.
    """
    if not root.is_dir():
        raise UserError("--data must be a folder of good images or an MVTec-style one", f"no folder {root}")
    train, good = root / "train", root / "train" / GOOD
    if train.is_dir() and not good.is_dir():
        names = ", ".join(sorted(path.name for path in train.iterdir())[:5])
        raise UserError(f"{train} must hold a folder '{GOOD}'", names or "nothing")
    folder = good if good.is_dir() else root
    images, test = tuple(list_images(folder)), tuple(_test_images(root))
    if not images and not test:
        raise UserError(f"{folder} must hold good images", "none", "train.synthetic makes a set to try")
    return Dataset(root, images, test)


def _test_images(root: Path) -> list[LabelledImage]:
    test = root / "test"
    folders = sorted(path for path in test.iterdir() if path.is_dir()) if test.is_dir() else []
    images = [
        LabelledImage(path, folder.name, _mask_of(root, path)) for folder in folders for path in list_images(folder)
    ]
    for mask, uses in Counter(image.mask for image in images if image.mask).items():
        if uses > 1:
            raise UserError(f"{mask} must belong to one test image", f"{uses} of that name", "rename all but one")
    return images


def _mask_of(root: Path, image: Path) -> Path | None:
    if image.parent.name == GOOD:
        return None
    folder = root / "ground_truth" / image.parent.name
    candidates = (folder / f"{image.stem}_mask.png", folder / f"{image.stem}.png")
    return next((path for path in candidates if path.is_file()), None)


def split_held_out(paths: Sequence[Path], fraction: float, seed: int) -> tuple[list[Path], list[Path]]:
    """Split good images at random into (train, held out), at least one each.

    The held-out ones freeze the score's maxima and choose the threshold, so they must not be trained on.
    """
    if len(paths) < 2:
        raise UserError("training needs at least 2 good images, one of them held out", str(len(paths)))
    order = np.random.default_rng(seed).permutation(len(paths))
    count = min(max(1, round(len(paths) * fraction)), len(paths) - 1)
    held_out = set(order[:count].tolist())
    train = [path for index, path in enumerate(paths) if index not in held_out]
    return train, [paths[index] for index in sorted(held_out)]


def read_mask(image: LabelledImage, size: tuple[int, int]) -> NDArray[np.bool_] | None:
    """Return an image's ground truth at `size` = (height, width), by the nearest pixel; None where it is unknown.

    Raises `UserError` naming a mask that cannot be read.
    """
    if not image.anomalous:
        return np.zeros(size, dtype=bool)
    if image.mask is None:
        return None
    grey = Image.fromarray(read_image(image.mask)).convert("L")
    return np.asarray(grey.resize((size[1], size[0]), Image.Resampling.NEAREST)) > 127


class ImageCache:
    """Resized images by index, decoded once and kept while `limit_bytes` allows."""

    def __init__(self, paths: Sequence[Path], size: tuple[int, int], limit_bytes: int = 4 << 30) -> None:
        self.paths = list(paths)
        self.size = size
        self._kept: dict[int, NDArray[np.uint8]] = {}
        self._limit = limit_bytes // (size[0] * size[1] * 3)

    def __len__(self) -> int:
        return len(self.paths)

    def image(self, index: int) -> NDArray[np.uint8]:
        """Return image `index`, (H, W, 3) uint8 RGB."""
        kept = self._kept.get(index)
        if kept is None:
            kept = resize(read_image(self.paths[index]), self.size)
            if len(self._kept) < self._limit:
                self._kept[index] = kept
        return kept

    def batch(self, indices: Sequence[int]) -> NDArray[np.uint8]:
        """Return images (B, H, W, 3)."""
        return np.stack([self.image(index) for index in indices])


def rotate(image: NDArray[np.uint8], degrees: float) -> NDArray[np.uint8]:
    """Rotate (H, W, 3) about its centre, bilinear, corners black: the paper's only augmentation."""
    return np.asarray(Image.fromarray(image).rotate(degrees, Image.Resampling.BILINEAR))
