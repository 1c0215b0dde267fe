"""Masks among the images: a data set whose masks lie in the images' own folder would be trained and judged on them."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from runtime.common.errors import UserError
from runtime.images.preprocess import read_with

LEVELS = 2  # of a mask; of a photo there are more
CURE = "move masks to ground_truth/DEFECT/STEM_mask.png"


def check_no_masks_among(paths: Sequence[Path]) -> None:
    """Raise `UserError` where the images of one folder hold a mask of another one.

    That is `STEM_mask` beside `STEM`, or the same stem twice, one of them in black and white alone.
    """
    by_stem: dict[str, list[Path]] = defaultdict(list)
    for path in paths:
        by_stem[path.stem].append(path)
    for stem, same in by_stem.items():
        image = by_stem.get(stem.removesuffix("_mask"))
        if stem.endswith("_mask") and image:
            raise _mixed(image[0], same[0])
        if len(same) > 1:
            flat = [path for path in same if read_with(path, _is_black_and_white)]
            if 0 < len(flat) < len(same):
                raise _mixed(next(path for path in same if path not in flat), flat[0])


def _is_black_and_white(image: Image.Image) -> bool:
    return image.convert("L").getcolors(LEVELS) is not None


def _mixed(image: Path, mask: Path) -> UserError:
    return UserError(f"{image.parent} must hold images alone", f"{mask.name}, a mask of {image.name}", CURE)
