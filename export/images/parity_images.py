"""Images that precisions are compared on: good ones from the calibration set, or labelled ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from export.calibration_data import CalibrationData
from export.images.labelled import check_classes, labelled_images, read_masks, say_use
from export.precisions.ranges import calibration_frames
from runtime.common.errors import UserError
from runtime.common.side_by_side import side_by_side
from runtime.images.preprocess import PLAIN, ReadOptions, read_image, resize

Frame = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Images:
    """Images to compare precisions on: `frames` (N, H, W, 3) at the engine's size, and what is known of them.

    A mask (H, W) is None where an anomalous image has no ground truth. Where all are good there is no AUROC.
    """

    frames: Sequence[Frame]
    anomalous: NDArray[np.bool_]
    masks: Sequence[NDArray[np.bool_] | None]

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def labelled(self) -> bool:
        """Whether both classes are there."""
        return bool(self.anomalous.any())

    def spread(self, count: int) -> "Images":
        """Return at most `count` of them, evenly spread."""
        if count >= len(self):
            return self
        chosen = np.linspace(0, len(self) - 1, count).round().astype(int)
        return Images([self.frames[i] for i in chosen], self.anomalous[chosen], [self.masks[i] for i in chosen])


def good_images(frames: Sequence[Frame]) -> Images:
    """Return frames (H, W, 3) that are all good as `Images`."""
    return Images(frames, np.zeros(len(frames), bool), [None] * len(frames))


def read_good(data: CalibrationData, size: tuple[int, int], count: int, read: ReadOptions = PLAIN) -> Images:
    """Return at most `count` of the calibration images at `size` = (height, width), evenly spread."""
    chosen = sorted(set(np.linspace(0, len(data.paths) - 1, min(count, len(data.paths))).round().astype(int).tolist()))
    few = CalibrationData(tuple(data.paths[i] for i in chosen), data.sha256, data.origin)
    return good_images([batch[0] for batch in calibration_frames(few, size, read)])


def read_labelled(root: Path, size: tuple[int, int], read: ReadOptions = PLAIN) -> Images:
    """Return the test images of an MVTec-style folder at `size`. Raises `UserError` unless both classes are there."""
    images = labelled_images(root)
    if not images:
        raise UserError(f"{root} must hold labelled images in test/good and test/<defect>", "none")
    say_use(root, images)
    anomalous = np.array([image.anomalous for image in images], dtype=bool)
    check_classes(anomalous, "an AUROC")
    frames = list(side_by_side(lambda image: resize(read_image(image.path, read), size), images))
    return Images(frames, anomalous, read_masks(images, size))
