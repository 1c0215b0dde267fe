"""Large frames made of small real images placed side by side, with their real defects and masks.

Every image keeps its own pixels where it has the cell's size, and is resized to it once where it has not. No image is
in two splits, and none twice in a frame.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from export.images.labelled import GOOD, LabelledImage, labelled_images, read_mask
from runtime.images.folders import list_images
from runtime.images.preprocess import read_image, resize

MOST_DEFECTS = 3  # of a frame's cells


@dataclass(frozen=True)
class Layout:
    """Frames of `rows` x `columns` cells of `side` pixels: how many to train on, good ones to test, and bad ones."""

    rows: int
    columns: int
    side: int
    train: int
    good: int
    bad: int
    seed: int = 0

    @property
    def cells(self) -> int:
        return self.rows * self.columns


def write_frames(source: Path, frames: Path, parts: Path, layout: Layout) -> None:
    """Write an MVTec-style set of large frames, and one of the very cells that they consist of, each once.

    `source` is an MVTec-style set; its training images that no frame is trained on are test images, too.
    """
    random = np.random.default_rng(layout.seed)
    images = [LabelledImage(path, GOOD, None) for path in list_images(source / "train" / "good")]
    trained, left = images[: layout.train * layout.cells], images[layout.train * layout.cells :]
    tested = labelled_images(source)
    good = [image for image in tested if not image.anomalous] + left
    bad = [tested[index] for index in random.permutation(len(tested)) if tested[index].anomalous]
    shown: dict[Path, tuple[str, LabelledImage]] = {}
    for name, split, chosen in _frames_of(trained, good, bad, layout, random):
        _write(frames, split, name, chosen, layout)
        for image in chosen:
            own = "train/good" if split == "train/good" else "test/bad" if image.anomalous else "test/good"
            shown[image.path] = own, image
    for path, (split, image) in shown.items():
        _write(parts, split, f"{path.parent.parent.name}_{path.parent.name}_{path.stem}", [image], layout)


def _frames_of(
    trained: Sequence[LabelledImage],
    good: Sequence[LabelledImage],
    bad: Sequence[LabelledImage],
    layout: Layout,
    random: np.random.Generator,
) -> Iterator[tuple[str, str, list[LabelledImage]]]:
    """Yield each frame's name, split, and images row by row."""
    for number in range(layout.train):
        yield f"{number:03}", "train/good", list(trained[number * layout.cells : (number + 1) * layout.cells])
    for number in range(layout.good + layout.bad):
        chosen = [good[index] for index in random.choice(len(good), layout.cells, replace=False)]
        if number < layout.good:
            yield f"{number:03}", "test/good", chosen
            continue
        first = (number - layout.good) * MOST_DEFECTS
        places = random.choice(layout.cells, MOST_DEFECTS, replace=False)
        for place, index in zip(places, range(first, first + MOST_DEFECTS), strict=True):
            chosen[place] = bad[index % len(bad)]
        yield f"{number:03}", "test/bad", chosen


def _write(root: Path, split: str, name: str, images: Sequence[LabelledImage], layout: Layout) -> None:
    columns = layout.columns if len(images) > 1 else 1
    picture = _together([resize(read_image(image.path), (layout.side, layout.side)) for image in images], columns)
    folder = root / split
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(folder / f"{name}.png", compress_level=1)
    if split != "test/bad":
        return
    masks = [read_mask(image, (layout.side, layout.side)) for image in images]
    truth = root / "ground_truth" / "bad"
    truth.mkdir(parents=True, exist_ok=True)
    whole = _together([np.asarray(mask, np.uint8) * 255 for mask in masks], columns)
    Image.fromarray(whole).save(truth / f"{name}_mask.png")


def _together(cells: Sequence[NDArray[np.uint8]], columns: int) -> NDArray[np.uint8]:
    """Return pictures of one size (h, w, ...) as one, `columns` of them in a row."""
    rows = [np.concatenate(cells[start : start + columns], axis=1) for start in range(0, len(cells), columns)]
    return np.concatenate(rows)
