"""From a file to the pixels that the engine takes: read, turn to 8-bit RGB, resize.

Training and runtime use these same functions, so that a frame meets the network exactly as its
training images did. Normalisation is not here: it is inside the engine.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from runtime.common.errors import UserError
from runtime.common.machine import available_cores
from runtime.images.parallel_resize import resize_in_strips

Pixels = TypeVar("Pixels")
IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
ALPHA_MODES = frozenset({"LA", "La", "PA", "RGBA", "RGBa"})
PHOTOMETRIC_TAG = 262  # of a TIFF; 0 says that white is zero
SIXTEEN_BIT_AS_INT32 = frozenset({"PNG", "PPM"})  # formats whose 16-bit grey some Pillow releases open as mode I


def to_rgb8(image: Image.Image) -> NDArray[np.uint8]:
    """Return any Pillow image as uint8 (H, W, 3) RGB, upright as its EXIF orientation says.

    Transparent parts are laid over black; 16-bit grey is scaled by 65535, not clipped. Raises
    `UserError` for a mode without a known full scale (32-bit integers, floats) or without a way to RGB.
    """
    sixteen_bit = image.mode.startswith("I;16") or (image.mode == "I" and image.format in SIXTEEN_BIT_AS_INT32)
    white_is_zero = image.format == "TIFF" and image.getexif().get(PHOTOMETRIC_TAG) == 0
    image = ImageOps.exif_transpose(image)
    if sixteen_bit:
        return _grey16_to_rgb8(image, white_is_zero)
    if image.mode in ("I", "F"):
        raise UserError("an image must have 1, 8 or 16 bits a channel", f"mode {image.mode}", "save it as 16-bit PNG")
    try:
        return np.array(_over_black(image).convert("RGB"))
    except ValueError as error:
        raise UserError("an image must have colours that turn into RGB", str(error), "save it as PNG") from None


def _grey16_to_rgb8(image: Image.Image, white_is_zero: bool) -> NDArray[np.uint8]:
    grey = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
    if white_is_zero:  # Pillow turns such TIFFs round at 8 bits, but not at 16
        grey = 65535 - grey
    grey8 = ((grey * 255 + 32767) // 65535).astype(np.uint8)  # rounded to nearest
    return np.repeat(grey8[:, :, None], 3, axis=2)


def _over_black(image: Image.Image) -> Image.Image:
    if image.mode not in ALPHA_MODES and "transparency" not in image.info:
        return image
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba)


def read_image(path: str | Path) -> NDArray[np.uint8]:
    """Read an image file as uint8 (H, W, 3) RGB. Raises `UserError` naming a file that cannot be read whole."""
    return read_with(path, to_rgb8)


def read_with(path: str | Path, convert: Callable[[Image.Image], Pixels], opened: BinaryIO | None = None) -> Pixels:
    """Return what `convert` makes of an image file; `opened` is its content, where that has been read already.

    Raises `UserError` naming a file that cannot be read whole.
    """
    try:
        with Image.open(opened or path) as image:
            return convert(image)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    # Pillow's decoders report damage with all of these
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, Image.DecompressionBombError) as error:
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


def list_images(folder: str | Path) -> list[Path]:
    """Return the images directly inside `folder`, `frame2.png` before `frame10.png`; hidden files are left out.

    Raises `UserError` if `folder` is no folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder} must be a folder of images", "no folder", "check the path")
    found = (path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
    return sorted((path for path in found if not path.name.startswith(".")), key=natural_key)


def natural_key(path: Path) -> tuple[list[str | int], str]:
    """Return what sorts `frame2.png` before `frame10.png`."""
    parts = re.split(r"([0-9]+)", path.name.casefold())
    return [int(part) if part.isdigit() and part.isascii() else part for part in parts], path.name
