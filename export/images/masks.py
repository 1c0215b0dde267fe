"""Ground-truth masks from files: which pixels are defect, whatever depth, palette or alpha a mask was saved with."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from runtime.common.errors import UserError
from runtime.images.orientation import orientation_of, turn_upright
from runtime.images.preprocess import read_with

LARGEST_LABEL = 32  # a mask with no brighter level numbers its defects 1, 2, ...; a soft edge would need more levels


@dataclass(frozen=True)
class MaskSlice:
    """The mask of one frame: entry `index` of the array (T, H, W) in an `.npy` file."""

    path: Path
    index: int


@dataclass(frozen=True)
class Saturation:
    """How much of a kind of defect must be found: `threshold` pixels, or that share of it where it is `relative`.

    `pixel_value` is the grey level of the masks of this kind.
    """

    pixel_value: int
    threshold: float
    relative: bool


@dataclass(frozen=True)
class MaskParts:
    """The mask of one image in several files, a defect each: all that any of them marks.

    `saturations` are those of the kinds of defects, where the data set states them.
    """

    paths: tuple[Path, ...]
    saturations: tuple[Saturation, ...] = ()


Mask = Path | MaskParts | MaskSlice


def mask_files(mask: Mask) -> tuple[Path, ...]:
    """Return the files that a mask is in."""
    return mask.paths if isinstance(mask, MaskParts) else (mask.path if isinstance(mask, MaskSlice) else mask,)


def load_mask(source: Mask) -> NDArray[np.bool_]:
    """Return which pixels are defect, (H, W) at the file's own size. Raises `UserError` naming a file it cannot read.

    Of a stack only the frame's own part is read. Of an image black and transparent pixels are good. Coloured
    masks: every other pixel is defect. Grey ones: levels up to `LARGEST_LABEL` number the defects; else what is
    brighter than half the brightest pixel is defect, so that soft edges are cut in their middle.
    """
    if isinstance(source, MaskSlice):
        return np.array(open_array(source.path, ndim=3)[source.index], dtype=bool)
    if isinstance(source, MaskParts):
        return _united([(path, load_mask(path)) for path in source.paths])
    return read_with(source, _defect_pixels)


def _united(parts: list[tuple[Path, NDArray[np.bool_]]]) -> NDArray[np.bool_]:
    first, whole = parts[0]
    for path, part in parts[1:]:
        if part.shape != whole.shape:
            raise UserError(f"{path} must be as large as {first.name}, {shape(whole)}", shape(part))
        whole = whole | part
    return whole


def shape(mask: NDArray[np.bool_]) -> str:
    """Return a mask's height and width in words."""
    return f"{mask.shape[0]}x{mask.shape[1]} (height x width)"


def resize_mask(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Resize a mask (h, w) to `size` = (height, width) so that no defect is lost.

    Where it shrinks a pixel is defect if any of those that it stands for is, so that a defect grows at its edge by
    less than a pixel of the result; where it grows the nearest pixel counts; at its own size nothing changes.
    """
    for axis, length in enumerate(size):
        own = mask.shape[axis]
        if length < own:
            mask = np.logical_or.reduceat(mask, np.arange(length) * own // length, axis=axis)
        elif length > own:
            mask = mask.take((2 * np.arange(length) + 1) * own // (2 * length), axis=axis)
    return mask


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
    orientation = orientation_of(image)
    return np.asarray(turn_upright(_marked(image), orientation))


def _marked(image: Image.Image) -> NDArray[np.bool_]:
    if image.mode.startswith("I") or image.mode in ("1", "L"):
        return _bright(np.asarray(image))
    rgba = np.asarray(image.convert("RGBA")).astype(np.uint16)
    colour, alpha = rgba[..., :3], rgba[..., 3]
    if not alpha.any():  # it says nothing: see `runtime.images.to_rgb`
        alpha = np.full_like(alpha, 255)
    over_black = colour * alpha[..., None] // 255
    if not colour.any() and alpha.min() < alpha.max():
        return _bright(alpha)  # painted in black on nothing
    if (over_black == over_black[..., :1]).all():
        return _bright(over_black[..., 0])
    return np.array(over_black.any(axis=2))


def _bright(levels: NDArray[Any]) -> NDArray[np.bool_]:
    peak = levels.max()
    return np.asarray(levels > (0 if peak <= LARGEST_LABEL else peak / 2))
