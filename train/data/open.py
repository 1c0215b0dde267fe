"""Images of a folder: one of the layouts of `export.images.layouts`, STC, good images alone, or a list of images."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from export.images.labelled import GOOD, LabelledImage, labelled_images, read_mask
from export.images.layouts import good_folder
from export.images.list_places import ImageList, find_list
from export.images.lists import read_list
from export.images.pairs import check_no_masks_among
from export.images.repeats import different
from runtime.common.errors import UserError
from runtime.images.folders import MOST_SPREAD, describe_ignored, evenly_spread, list_folders, list_images
from runtime.images.preprocess import PLAIN, ReadOptions, read_image, resize
from train.data.dataset import Dataset
from train.data.mvtec import classes, paper_size
from train.data.stc import is_stc, open_stc, scenes

__all__ = [
    "GOOD",
    "Dataset",
    "ImageCache",
    "LabelledImage",
    "list_classes",
    "open_dataset",
    "read_mask",
    "rotate",
    "split_good",
    "split_held_out",
    "split_selection",
]

ENOUGH_TO_SPLIT = 32  # held-out images; half of fewer would select badly and promise little


def list_classes(root: Path) -> tuple[str, ...]:
    """Return what `root` holds, each to be opened as `root / name`: classes of MVTec AD, scenes of STC.

    Raises `UserError` if `root` is neither.
    """
    return scenes(root) if is_stc(root) else classes(root)


def open_dataset(root: Path) -> Dataset:
    """Find the images under `root`, or that the list `root` names (`export.images.list_places`).

    A scene of STC is opened as `stc / "01"`, though it is no folder. Raises `UserError` if there is no folder,
    neither a good image to train on nor any to test on, two test images that share a mask, labels of STC that do
    not fit its frames, or a list that is wrong.
    """
    if is_stc(root):
        return open_stc(root)
    if not root.exists() and is_stc(root.parent):
        return open_stc(root.parent, scene=root.name)
    if source := find_list(root):
        return _open_list(source)
    if not root.is_dir():
        raise UserError("--data must be a folder of good images or an MVTec-style one, or a list", f"no folder {root}")
    images, test = _good_images(root), tuple(labelled_images(root))
    if not images and not test:
        folder = good_folder(root / "train") or root
        found = describe_ignored(folder) or "none"
        raise UserError(f"{folder} must hold good images", found, "train.synthetic makes a set to try")
    return Dataset(root, images, test, paper_size=paper_size(root.absolute().name))


def _open_list(source: ImageList) -> Dataset:
    images = read_list(source)
    test = tuple(LabelledImage(image.path, image.defect, image.mask) for image in images if not image.train)
    return Dataset(source.root, tuple(image.path for image in images if image.train), test, part=source.part)


def _good_images(root: Path) -> tuple[Path, ...]:
    """Return the images to train on below `root`. Raises `UserError` where they are not told from others or masks."""
    train = root / "train"
    good = good_folder(train)
    if train.is_dir() and good is None:
        names = ", ".join(path.name for path in list_folders(train)[:5])
        raise UserError(f"{train} must hold a folder '{GOOD}' (or ok, or normal)", names or "none", "rename it")
    images = list_images(good or root)
    check_no_masks_among(images)
    return tuple(images)


def split_held_out(paths: Sequence[Path], fraction: float, seed: int) -> tuple[list[Path], list[Path]]:
    """Split good images at random into (train, held out), at least one each.

    The held-out ones choose weights, constants and threshold (`split_selection`), so they must not be trained on.
    """
    if len(paths) < 2:
        raise UserError("training needs at least 2 good images, one of them held out", str(len(paths)))
    order = np.random.default_rng(seed).permutation(len(paths))
    count = min(max(1, round(len(paths) * fraction)), len(paths) - 1)
    held_out = set(order[:count].tolist())
    train = [path for index, path in enumerate(paths) if index not in held_out]
    return train, [paths[index] for index in sorted(held_out)]


def split_good(dataset: Dataset, fraction: float, seed: int) -> tuple[list[Path], list[Path], list[Path]]:
    """Split a dataset's good images, each once, into those that are trained on, that select, that choose the threshold.

    Of the images that were added the same fraction is held out, at least one of two: without any, the weights that like
    the others best would be kept. The rest is split as without them.
    """
    good, added = different(dataset.good), set(dataset.added)
    train, held_out = split_held_out([path for path in good if path not in added], fraction, seed)
    selection, of_threshold = split_selection(held_out)
    more = [path for path in good if path in added]
    if len(more) < 2:
        return train + more, selection, of_threshold
    more_train, more_held_out = split_held_out(more, fraction, seed)
    more_selection, more_of_threshold = split_selection(more_held_out) if of_threshold else (more_held_out, [])
    return train + more_train, selection + more_selection, of_threshold + more_of_threshold


class ImageCache:
    """Resized images by index, decoded once and kept while `limit_bytes` allows.

    An index is that of an input of the network: an image, or a tile of one (`train.data.frame_tiles`), of which an
    image has `per_image`.
    """

    per_image = 1

    def __init__(
        self, paths: Sequence[Path], size: tuple[int, int], limit_bytes: int = 4 << 30, read: ReadOptions = PLAIN
    ) -> None:
        self.paths = list(paths)
        self.read = read
        self.size = size
        self.look: Callable[[int, NDArray[np.uint8]], None] | None = None  # is called with every image that is decoded
        self._kept: dict[int, NDArray[np.uint8]] = {}
        self._limit = limit_bytes // (size[0] * size[1] * 3)

    def __len__(self) -> int:
        return len(self.paths)

    def image(self, index: int) -> NDArray[np.uint8]:
        """Return image `index`, (H, W, 3) uint8 RGB."""
        kept = self._kept.get(index)
        if kept is None:
            kept = resize(self.decoded(index), self.size)
            if len(self._kept) < self._limit:
                self._kept[index] = kept
        return kept

    def decoded(self, index: int) -> NDArray[np.uint8]:
        """Return image file `index` as it is, (H, W, 3) uint8 RGB of any size."""
        frame = read_image(self.paths[index], self.read)
        if self.look is not None:
            self.look(index, frame)
        return frame

    def batch(self, indices: Sequence[int]) -> NDArray[np.uint8]:
        """Return images (B, H, W, 3)."""
        return np.stack([self.image(index) for index in indices])

    def corners(self, indices: Sequence[int]) -> list[tuple[int, int]]:
        """Return the (top, left) of each input in its image, in pixels; none where inputs are whole images."""
        return []

    def places(self, indices: Sequence[int]) -> NDArray[np.int64] | None:
        """Return the (row, column) of each input among the tiles of its image, (B, 2); None for whole images."""
        return None

    def spread(self, most: int = MOST_SPREAD) -> list[int]:
        """Return at most `most` indices that stand for all."""
        return evenly_spread(len(self), most)


def split_selection(held_out: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Split held-out images into those that select (weights, constants) and those that choose the threshold.

    Every second one each, from `ENOUGH_TO_SPLIT` images on; with fewer all do both, and nothing can be promised of
    the threshold's false alarms (`train.judging.false_alarms`).
    """
    if len(held_out) < ENOUGH_TO_SPLIT:
        return list(held_out), []
    return list(held_out[::2]), list(held_out[1::2])


def rotate(image: NDArray[np.uint8], degrees: float) -> NDArray[np.uint8]:
    """Rotate (H, W, 3) about its centre, bilinear, corners black: the paper's only augmentation."""
    return np.asarray(Image.fromarray(image).rotate(degrees, Image.Resampling.BILINEAR))
