"""From a file to the pixels that the engine takes: read, turn to 8-bit RGB, resize.

Training and runtime use these same functions, so that a frame meets the network as its training images did: to the
bit, but for a resize before an engine (`resize_for_engine`), which is within one grey level. Normalisation is not
here: it is inside the engine.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from runtime.common.errors import UserError
from runtime.common.machine import available_cores
from runtime.images import png
from runtime.images.bit_depth import FULL_SCALE
from runtime.images.damage import check_promises, check_streams
from runtime.images.fast_resize import resize_fast
from runtime.images.orientation import UPRIGHT, stated_orientation, upright_size
from runtime.images.parallel_resize import resize_in_strips
from runtime.images.size_limit import check_file_size, check_size, open_image
from runtime.images.to_rgb import to_rgb8

Pixels = TypeVar("Pixels")


@dataclass(frozen=True)
class ReadOptions:
    """How image files are read.

    `white` is the sample value that is white in 16-bit grey files that do not say it themselves (4095 for a camera
    of 12 bits). `max_pixels` bounds what a file may hold, for a small one can ask for any amount of memory; None: what
    a quarter of this machine's memory takes.
    """

    white: int = FULL_SCALE
    max_pixels: int | None = None


PLAIN = ReadOptions()


def read_image(path: str | Path, options: ReadOptions = PLAIN, opened: BinaryIO | None = None) -> NDArray[np.uint8]:
    """Read an image file as uint8 (H, W, 3) RGB; `opened` is its content, where that has been read already.

    Raises `UserError` naming a file that cannot be read whole.
    """
    return read_with(path, lambda image: to_rgb8(image, options.white), opened, options.max_pixels)


def read_size(path: str | Path, max_pixels: int | None = None) -> tuple[int, int]:
    """Return an image file's (height, width) in pixels, upright, from its header: whether it is whole is not looked at.

    Raises `UserError` naming a file that is no image, or has more than `max_pixels`.
    """
    return read_with(
        path,
        lambda image: upright_size(image, _orientation(image, Path(path))),  # of a TIFF it is read first, then the size
        max_pixels=max_pixels,
        header=True,
    )


def read_orientation(path: str | Path) -> int:
    """Return an image file's EXIF orientation, 1 (upright) to 8. Raises `UserError` naming a file that is no image."""
    return read_with(path, lambda image: _orientation(image, Path(path)), header=True)


def _orientation(image: Image.Image, path: Path) -> int:
    if image.format == "PNG":  # of which Pillow decodes the pixels to find that there is no EXIF behind them
        with path.open("rb") as file:
            if not png.may_be_turned(file):
                return UPRIGHT
    return stated_orientation(image)


def read_with(
    path: str | Path,
    convert: Callable[[Image.Image], Pixels],
    opened: BinaryIO | None = None,
    max_pixels: int | None = None,
    *,
    header: bool = False,
) -> Pixels:
    """Return what `convert` makes of an image file, or of its content that is `opened` already; with `header` of what
    its header says alone.

    Raises `UserError` naming a file that cannot be read whole, is damaged so far as that can be found
    (`runtime.images.damage`), or has more than `max_pixels`.
    """
    if opened is None and Path(path).exists() and not Path(path).is_file():  # reading a pipe may wait for ever
        raise UserError(f"{path} must be an image file", "no regular file", "check the path")
    try:
        if opened is None:
            check_file_size(Path(path).stat().st_size)
        with open_image(opened or path) as image:
            check_size(image.size, max_pixels)
            check_promises(image, opened or path)
            if header:
                return convert(image)
            pixels = convert(image)
            check_streams(image, opened or path)
            return pixels
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except MemoryError:
        raise UserError(f"{path} must fit into memory", "not enough of it", "cut it up, or save it smaller") from None
    # Pillow's decoders report damage with all of these
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, struct.error) as error:
        raise UserError(f"{path} must be a whole image", str(error), "replace or remove the file") from None


def check_frame(frame: NDArray[np.uint8]) -> None:
    """Raise `UserError` unless `frame` is uint8 (H, W, 3) with at least one pixel."""
    if not isinstance(frame, np.ndarray):
        raise UserError(
            "a frame must be uint8 (H, W, 3) RGB", f"a {type(frame).__name__}", "np.asarray(frame, np.uint8)"
        )
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or frame.size == 0:
        raise UserError("a frame must be uint8 (H, W, 3) RGB", f"{frame.dtype} {frame.shape}", "convert it first")


def resize(rgb: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize uint8 (H, W, 3) to `size` = (height, width) in pixels; `rgb` itself if it fits already.

    Bilinear with a support that grows with the reduction, so that fine texture does not alias. The
    whole frame is kept: no crop, the aspect ratio follows `size`. Large frames are resized by several cores
    (`runtime.images.parallel_resize`). Raises `UserError` for anything but uint8 (H, W, 3).
    """
    check_frame(rgb)
    if rgb.shape[:2] == size:
        return rgb
    return resize_in_strips(rgb, size, available_cores())


def resize_for_engine(rgb: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize as `resize` does, in little more than half of its time and within one grey level of it."""
    check_frame(rgb)
    if rgb.shape[:2] == size:
        return rgb
    return resize_fast(rgb, size, available_cores())
