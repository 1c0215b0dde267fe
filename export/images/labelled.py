"""Labelled images with their masks, and the AUROC over them; `export.images.layouts` says where they lie."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from export.images.layouts import (
    GOOD,
    LOOKED_FOR,
    mask_folders,
    masks_in,
    test_folders,
)
from export.images.list_places import find_list
from export.images.lists import read_list
from export.images.masks import Mask, load_mask, mask_files, resize_mask, shape
from export.images.pairs import check_no_masks_among
from export.images.saturation import read_saturations
from runtime.common.errors import UserError
from runtime.common.notices import say_once
from runtime.images.folders import describe_use, list_images
from runtime.images.preprocess import read_orientation, read_size

__all__ = ["GOOD", "LabelledImage", "auroc", "check_classes", "labelled_images", "read_mask", "read_masks", "say_use"]

MOSTLY = 0.75  # of an image; a mask that marks more is likely the wrong way round
NAMES = 3  # that a notice lists


@dataclass(frozen=True)
class LabelledImage:
    """A test image; `mask` is None for a good image and where no ground truth is given."""

    path: Path
    defect: str
    mask: Mask | None

    @property
    def anomalous(self) -> bool:
        """Whether the image shows a defect."""
        return self.defect != GOOD


def read_mask(image: LabelledImage, size: tuple[int, int]) -> NDArray[np.bool_] | None:
    """Return an image's ground truth at `size` = (height, width), as `resize_mask` does; None where it is unknown.

    Raises `UserError` naming a mask that cannot be read, or is of another shape than its image (both upright).
    """
    mask = _whole_mask(image)
    return np.zeros(size, dtype=bool) if not image.anomalous else None if mask is None else resize_mask(mask, size)


def _whole_mask(image: LabelledImage) -> NDArray[np.bool_] | None:
    if not image.anomalous or image.mask is None:
        return None
    mask = load_mask(image.mask)
    height, width = read_size(image.path)
    if mask.shape != (height, width):
        expected = f"{mask_files(image.mask)[0]} must be as large as its image {image.path}, {height}x{width}"
        raise UserError(f"{expected} (height x width)", shape(mask), "turn or export the mask as the image is")
    return mask


def read_masks(
    images: Sequence[LabelledImage],
    size: tuple[int, int],
    keep: Callable[[NDArray[np.bool_]], NDArray[np.bool_]] = lambda mask: mask,
) -> list[NDArray[np.bool_] | None]:
    """Return the ground truth of many images at `size`, as `read_mask` does, and say what is wrong with it.

    `keep` returns what stands for a mask that marks a pixel: the same from elsewhere, where many do not fit memory.
    A mask that marks no pixel of an image with a defect tells nothing: it is None, as if there were none.
    """
    masks: list[NDArray[np.bool_] | None] = []
    empty, full, turned = [], [], []
    for image in images:
        mask = read_mask(image, size)
        if mask is not None and image.anomalous:
            if not mask.any():
                empty.append(image)
                mask = None
            elif mask.mean() > MOSTLY:
                full.append(image)
            if _turned_alone(image):
                turned.append(image)
            mask = None if mask is None else keep(mask)
        masks.append(mask)
    missing = [image for image, mask in zip(images, masks, strict=True) if mask is None]
    for which, what in (
        (empty, "masks mark no pixel of their anomalous image, and count as missing"),
        (full, f"masks mark more than {MOSTLY:.0%} of their image; are they the wrong way round?"),
        (turned, "images are turned by EXIF, and their masks are not: a mask must lie as the image is seen"),
    ):
        if which:
            say_once(f"{len(which)} {what}: {_names(which)}")
    if missing:
        anomalous = sum(image.anomalous for image in images)
        say_once(
            f"{len(missing)} of {anomalous} anomalous images have no mask (looked for {LOOKED_FOR}), "
            f"so no figure by pixel is given: {_names(missing)}"
        )
    return masks


def _turned_alone(image: LabelledImage) -> bool:
    """Whether EXIF turns an image in another way than its mask; the shape says nothing of half a turn."""
    if not isinstance(image.mask, Path):
        return False
    return read_orientation(image.path) != read_orientation(image.mask)


def _names(images: Sequence[LabelledImage]) -> str:
    return _few([image.path for image in images])


def _few(paths: Sequence[Path]) -> str:
    return ", ".join([*map(str, paths[:NAMES]), *(["..."] if len(paths) > NAMES else [])])


def labelled_images(root: Path) -> list[LabelledImage]:
    """Return the test images below `root`, sorted by class and name, or in the order of the list that `root` is.

    None where there are no such folders. Raises `UserError` for two images that share a mask, for masks among the
    images, and for a list that is wrong.
    """
    if source := find_list(root):
        return [LabelledImage(image.path, image.defect, image.mask) for image in read_list(source) if not image.train]
    images = _in_folders(root)
    for mask, uses in Counter(image.mask for image in images if image.mask).items():
        if uses > 1:
            name = mask_files(mask)[0]
            raise UserError(f"{name} must belong to one test image", f"{uses} of that name", "rename all but one")
    return images


def say_use(root: Path, images: Sequence[LabelledImage]) -> None:
    """Say how many of the labelled images below `root` are used, what is ignored, and which masks belong to none."""
    anomalous = sum(image.anomalous for image in images)
    say_once(f"{describe_use([image.path for image in images])}; {anomalous} of them are anomalous")
    _say_orphans(root, images)


def _in_folders(root: Path) -> list[LabelledImage]:
    images = []
    saturations = read_saturations(root)
    for folder in test_folders(root):
        check_no_masks_among(paths := list_images(folder.images))
        masks = {} if folder.masks is None else masks_in(folder.masks, saturations)
        images += [LabelledImage(path, folder.defect, masks.get(path.stem)) for path in paths]
    return images


def _say_orphans(root: Path, images: Sequence[LabelledImage]) -> None:
    used = {file for image in images if image.mask for file in mask_files(image.mask)}
    found = [mask for folder in mask_folders(root) for mask in masks_in(folder).values()]
    orphans = [mask_files(mask)[0] for mask in found if not used.intersection(mask_files(mask))]
    if orphans:
        say_once(f"{len(orphans)} masks belong to no image: {_few(orphans)}")


def check_classes(labels: NDArray[np.bool_], what: str) -> None:
    """Raise `UserError` unless `labels` holds both classes."""
    if labels.all() or not labels.any():
        found = "none" if not labels.size else "only anomalous ones" if labels.all() else "only good ones"
        raise UserError(f"{what} needs good and anomalous examples", found, "add the other class to test/")


def auroc(scores: ArrayLike, anomalous: ArrayLike) -> float:
    """Return the area under the ROC curve in [0, 1]: the share of (good, anomalous) pairs in the right order.

    Equal scores count half. Both arguments have the same shape, any. Raises `UserError` if only one class is present.
    """
    labels = np.asarray(anomalous, dtype=bool).ravel()
    check_classes(labels, "an AUROC")
    values = np.asarray(scores).ravel()
    good, bad = np.sort(values[~labels]), values[labels]
    below, not_above = np.searchsorted(good, bad, "left"), np.searchsorted(good, bad, "right")
    return float((below + not_above).mean() / 2 / len(good))
