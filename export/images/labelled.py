"""Labelled images in MVTec's layout (test/good, test/<defect>, ground_truth/<defect>), and the AUROC over them."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from export.images.masks import MaskSlice, load_mask
from runtime.common.errors import UserError
from runtime.images.folders import list_images

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


def labelled_images(root: Path) -> list[LabelledImage]:
    """Return the images in `root`/test, sorted by class and name; none where there is no such folder.

    Raises `UserError` for two images that share a mask.
    """
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
