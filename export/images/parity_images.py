"""Images that precisions are compared on: good ones from the calibration set, or labelled ones."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from export.calibration_data import CalibrationData
from export.images.labelled import LabelledImage, check_classes, labelled_images, read_mask, read_masks, say_use
from export.images.tile_images import Place, places_of_defect, some_places, tile_of
from export.precisions.ranges import calibration_frames
from runtime.common.errors import UserError
from runtime.common.side_by_side import side_by_side
from runtime.images.folders import evenly_spread
from runtime.images.preprocess import PLAIN, ReadOptions, read_image, resize
from runtime.images.tiles import TileGrid

Frame = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Images:
    """Images to compare precisions on: `frames` (N, H, W, 3) at the engine's size, and what is known of them.

    Of a tiled detector's network they are tiles, each at one of the `places`; else there are none.
    A mask (H, W) is None where an anomalous image has no ground truth. Where all are good there is no AUROC.
    """

    frames: Sequence[Frame]
    anomalous: NDArray[np.bool_]
    masks: Sequence[NDArray[np.bool_] | None]
    places: Sequence[Place] = ()

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
        chosen = evenly_spread(len(self), count)
        places = [self.places[i] for i in chosen] if self.places else ()
        frames, masks = [self.frames[i] for i in chosen], [self.masks[i] for i in chosen]
        return Images(frames, self.anomalous[chosen], masks, places)


def good_images(frames: Sequence[Frame], places: Sequence[Place] = ()) -> Images:
    """Return frames (H, W, 3), or tiles of some places, that are all good as `Images`."""
    return Images(frames, np.zeros(len(frames), bool), [None] * len(frames), places)


def read_good(
    data: CalibrationData,
    size: tuple[int, int],
    count: int,
    read: ReadOptions = PLAIN,
    tiles: TileGrid | None = None,
) -> Images:
    """Return at most `count` of the calibration images at `size` = (height, width), evenly spread.

    With `tiles` some of the tiles of each.
    """
    chosen = evenly_spread(len(data.paths), count)
    few = CalibrationData(tuple(data.paths[i] for i in chosen), data.sha256, data.origin)
    frames = (batch[0] for batch in calibration_frames(few, size, read))
    if tiles is None:
        return good_images(list(frames))
    cut = [
        (tile_of(frame, tiles, place), place)
        for number, frame in enumerate(frames)
        for place in some_places(tiles, number)
    ]
    return good_images([tile for tile, _ in cut], [place for _, place in cut])


def read_labelled(
    root: Path, size: tuple[int, int], read: ReadOptions = PLAIN, tiles: TileGrid | None = None
) -> Images:
    """Return the test images of an MVTec-style folder at `size`, or with `tiles` some tiles of each.

    Of an anomalous image those that show its defect; one without a mask is left out then, for nothing says which do.
    Raises `UserError` unless both classes are there.
    """
    images = labelled_images(root)
    if not images:
        raise UserError(f"{root} must hold labelled images in test/good and test/<defect>", "none")
    say_use(root, images)
    anomalous = np.array([image.anomalous for image in images], dtype=bool)
    check_classes(anomalous, "an AUROC")
    frames = side_by_side(lambda image: resize(read_image(image.path, read), size), images)
    if tiles is not None:
        return _labelled_tiles(frames, images, size, tiles)
    return Images(list(frames), anomalous, read_masks(images, size))


def _labelled_tiles(
    frames: Iterable[Frame], images: Sequence[LabelledImage], size: tuple[int, int], tiles: TileGrid
) -> Images:
    """Return some tiles of each labelled image, frame by frame, so that no more than a few are kept whole."""
    cut: list[Frame] = []
    masks: list[NDArray[np.bool_] | None] = []
    places: list[Place] = []
    for number, (frame, image) in enumerate(zip(frames, images, strict=True)):
        mask = read_mask(image, size)
        if mask is None:
            continue
        chosen = places_of_defect(mask, tiles) if image.anomalous else some_places(tiles, number)
        cut += [tile_of(frame, tiles, place) for place in chosen]
        masks += [tile_of(mask, tiles, place) for place in chosen]
        places += chosen
    anomalous = np.array([mask is not None and bool(mask.any()) for mask in masks], bool)
    check_classes(anomalous, "an AUROC over tiles, whose defects masks must mark,")
    return Images(cut, anomalous, masks, places)
