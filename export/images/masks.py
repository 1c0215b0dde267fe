"""Ground-truth masks from files: which pixels are defect, whatever depth, palette or alpha a mask was saved with."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from runtime.common.errors import UserError
from runtime.images.preprocess import read_with

LARGEST_LABEL = 32  # a mask with no brighter level numbers its defects 1, 2, ...; a soft edge would need more levels


@dataclass(frozen=True)
class MaskSlice:
    """The mask of one frame: entry `index` of the array (T, H, W) in an `.npy` file."""

    path: Path
    index: int


def load_mask(source: Path | MaskSlice) -> NDArray[np.bool_]:
    """Return which pixels are defect, (H, W) at the file's own size. Raises `UserError` naming a file it cannot read.

    Of a stack only the frame's own part is read. Of an image black and transparent pixels are good. Coloured
    masks: every other pixel is defect. Grey ones: levels up to `LARGEST_LABEL` number the defects; else what is
    brighter than half the brightest pixel is defect, so that soft edges are cut in their middle.
    """
    if isinstance(source, MaskSlice):
        return np.array(open_array(source.path, ndim=3)[source.index], dtype=bool)
    return read_with(source, _defect_pixels)


def open_array(path: Path, ndim: int) -> NDArray[Any]:
    """Map the array of an `.npy` file into memory, unread. Raises `UserError` if it is none of `ndim` dimensions."""
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"{path} must hold labels", "no such file", "copy it from the data set") from None
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path} must be a whole .npy file", str(error), "copy it from the data set again") from None
    if not isinstance(array, np.ndarray) or array.ndim != ndim or array.dtype.kind not in "biuf":
        found = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else "an archive"
        raise UserError(f"{path} must be an array of {ndim} dimensions of numbers", found)
    return array


def _defect_pixels(image: Image.Image) -> NDArray[np.bool_]:
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode in ("1", "L"):
        return _bright(np.asarray(image).astype(np.int64))
    rgba = np.asarray(image.convert("RGBA")).astype(np.int64)
    colour, alpha = rgba[..., :3], rgba[..., 3]
    over_black = colour * alpha[..., None] // 255
    if not colour.any() and alpha.min() < alpha.max():
        return _bright(alpha)  # painted in black on nothing
    if (over_black == over_black[..., :1]).all():
        return _bright(over_black[..., 0])
    return np.array(over_black.any(axis=2))


def _bright(levels: NDArray[np.int64]) -> NDArray[np.bool_]:
    peak = levels.max()
    return np.asarray(levels > (0 if peak <= LARGEST_LABEL else peak / 2))
