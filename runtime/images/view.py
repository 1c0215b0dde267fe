"""What of a camera's frame is judged, and which way up: region of interest, mask, rotation, flip, in this order.

A detector must be trained on frames seen the same way (`python -m runtime.capture` takes them). The mask acts on the
result (`runtime.images.mask`), and on the pixels only where asked to: painting over a part of the frame is itself an
anomaly to a detector that was not trained so. On screws at 256x256 with a threshold of 1.07, good frames score 0.99;
with the frame outside a circle painted in any colour, in that of a median frame too, 1.3 to 2.4. Unpainted, what lies
outside but near the mask's edge is still seen by positions inside: clutter that starts 32 pixels away left the score
below the threshold, clutter 16 pixels away did not.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.common.errors import UserError
from runtime.images.mask import Scoring, mask_at, result_inside
from runtime.images.opencv import opencv
from runtime.images.pixels import Image8
from runtime.images.preprocess import ReadOptions, check_frame, read_image
from runtime.result import Result

FILL = (124, 116, 104)  # ImageNet's mean colour, which normalisation turns into nothing
WHITE = 128  # of 255: a mask's grey from here up is inspected

Box = tuple[int, int, int, int]  # x, y, width, height in pixels


@dataclass(frozen=True)
class ViewOptions:
    """`roi` in pixels of the camera's frame; `mask` an image of that frame's size, white where it is inspected.

    `fill` paints over the rest. `rotate` is degrees clockwise, `flip` "h" (left and right change places) or "v".
    `max_pixels` bounds the mask (`ReadOptions`).
    """

    roi: Box | None = None
    mask: Path | None = None
    fill: bool = False
    rotate: int = 0
    flip: str = ""
    max_pixels: int | None = None


class View:
    """Turns camera frames into what is judged, and results into those of the inspected part.

    Raises `UserError` for a mask that cannot be read or shows nothing to inspect.
    """

    def __init__(self, options: ViewOptions | None = None) -> None:
        self.options = options or ViewOptions()
        self._mask = None if self.options.mask is None else read_mask(self.options.mask, self.options.max_pixels)
        self._checked: tuple[int, ...] = ()  # shape of the last frame, known to fit
        self._judged_mask: NDArray[np.uint8] | None = None  # (H, W) of the judged frame, not 0 where it is inspected
        self._paint = np.zeros((0, 0, 3), np.uint8)  # a judged frame of nothing but `FILL`
        self._insides: dict[tuple[int, int], NDArray[np.bool_]] = {}  # by the map's size: a candidate's is another

    def __call__(self, image: Image8) -> Image8:
        """Return the part of `image` (H, W, 3) that is judged; the image itself where there is nothing to do.

        Raises `UserError` unless region and mask fit the frame.
        """
        if self.options == ViewOptions():
            return image
        if image.shape != self._checked:
            self._check(image)
        seen = self._turn(image)
        if self._judged_mask is not None and self.options.fill:
            seen = opencv().copyTo(np.ascontiguousarray(seen), self._judged_mask, self._paint.copy())
        return np.ascontiguousarray(seen)

    def inspected(self, result: Result, scoring: Scoring) -> Result:
        """Return what `result` says of the part inside the mask."""
        height, width = result.anomaly_map.shape
        inside = self.inside((height, width), scoring)
        return result if inside is None else result_inside(result, inside, scoring)

    def inside(self, size: tuple[int, int], scoring: Scoring) -> NDArray[np.bool_] | None:
        """Return where a map of `size` (H, W) is inspected; None: everywhere. Once a frame was seen, any thread may.

        Raises `UserError` where that is too little for a score.
        """
        if self._judged_mask is None:
            return None
        if size not in self._insides:
            inside = mask_at(self._judged_mask > 0, size)
            self._check_inside(inside, scoring)
            self._insides[size] = inside
        return self._insides[size]

    @cached_property
    def mask_sha256(self) -> str:
        """The SHA-256 of the mask's size and pixels; empty without a mask."""
        if self._mask is None:
            return ""
        return hashlib.sha256(repr(self._mask.shape).encode() + self._mask.tobytes()).hexdigest()

    def fit(self, judged_size: tuple[int, int]) -> None:
        """Have the mask ready for judged frames of (height, width) `judged_size`, of which none need be given.

        Raises `UserError` where it is not as large as the camera's frame, or shows nothing of what is judged.
        """
        if self._mask is None or (self._judged_mask is not None and self._judged_mask.shape == judged_size):
            return
        self._turn_mask()
        assert self._judged_mask is not None
        if self._judged_mask.shape != judged_size:
            (height, width), (seen_height, seen_width) = self._judged_mask.shape, judged_size
            self._judged_mask = None
            found = f"{width}x{height} of it are seen where the camera shows {seen_width}x{seen_height}"
            raise UserError(f"{self.options.mask} must be as large as the camera's frame", found, "draw it on one")

    def check_map(self, size: tuple[int, int], scoring: Scoring) -> None:
        """Raise `UserError` before the first frame where the mask leaves too little of a map of `size` (H, W)."""
        judged = None if self._mask is None else self._turn(self._mask)
        if judged is not None and judged.any():
            self._check_inside(mask_at(judged > 0, size), scoring)

    def _check_inside(self, inside: NDArray[np.bool_], scoring: Scoring) -> None:
        """Refuse a mask under which not even a frame that is anomalous all over could be found so."""
        needed, left = scoring.top_count((inside.shape[0], inside.shape[1])), scoring.most_inside(inside)
        if left < needed:
            of = f"the map's {inside.size} positions" if scoring.tiles is None else "some tile's positions"
            raise UserError(
                f"{self.options.mask} must leave at least {needed} of {of}, which make an image's score",
                str(left),
                "draw it larger, or train on that part alone and give it as --roi",
            )

    def inside_frame(self, judged_size: tuple[int, int]) -> NDArray[np.bool_] | None:
        """Return what the mask leaves of a judged frame of (height, width) `judged_size`; None: all of it."""
        mask = self._judged_mask
        return None if mask is None or mask.shape != judged_size else mask > 0

    def describe(self) -> dict[str, Any]:
        """Return what was set, for JSON; empty where the camera's frame itself is judged."""
        options = self.options
        said = {
            "roi": None if options.roi is None else list(options.roi),
            "mask": None if options.mask is None else options.mask.name,
            "mask_fill": options.fill,
            "rotate": options.rotate,
            "flip": options.flip,
        }
        return {key: value for key, value in said.items() if value}

    def to_camera(self, box: Box, judged_size: tuple[int, int]) -> Box:
        """Return a box of the judged frame, which is of (height, width) `judged_size`, in the camera's pixels."""
        size = judged_size[::-1]
        box = _flip_box(box, size, self.options.flip)
        for _ in range((360 - self.options.rotate) % 360 // 90):
            box, size = _quarter_turn(box, size), size[::-1]
        left, top = self.options.roi[:2] if self.options.roi else (0, 0)
        return box[0] + left, box[1] + top, box[2], box[3]

    def seen(self, image: Image8) -> Image8:
        """Return what is seen of `image` (H, W, 3), which fits, as a copy; nothing is painted over."""
        copy: Image8 = self._turn(image).copy()
        return copy

    def put_back(self, image: Image8, seen: Image8) -> None:
        """Put `seen`, which `seen` gave and somebody drew on, to where it is in `image`."""
        cv2 = opencv()
        if self.options.flip:
            seen = cv2.flip(seen, 1 if self.options.flip == "h" else 0)
        if self.options.rotate:
            back = {90: cv2.ROTATE_90_COUNTERCLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_CLOCKWISE}
            seen = cv2.rotate(seen, back[self.options.rotate])
        left, top = self.options.roi[:2] if self.options.roi else (0, 0)
        image[top : top + seen.shape[0], left : left + seen.shape[1]] = seen

    def _turn(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Crop, rotate and flip (H, W, ...), with OpenCV, which takes a tenth of NumPy's time."""
        cv2 = opencv()
        if self.options.roi is not None:
            x, y, width, height = self.options.roi
            pixels = pixels[y : y + height, x : x + width]
        if self.options.rotate:
            codes = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}
            pixels = cv2.rotate(pixels, codes[self.options.rotate])
        if self.options.flip:
            pixels = cv2.flip(pixels, 1 if self.options.flip == "h" else 0)
        return pixels

    def _check(self, image: Image8) -> None:
        check_frame(image)
        height, width = image.shape[:2]
        frame = f"a frame of {width}x{height}"
        if self.options.roi is not None:
            check_roi(self.options.roi, (height, width))
        if self._mask is not None:
            if self._mask.shape != (height, width):
                found = f"{self._mask.shape[1]}x{self._mask.shape[0]} and {frame}"
                raise UserError(f"{self.options.mask} must be as large as the camera's frame", found, "draw it on one")
            self._turn_mask()
        self._checked = image.shape

    def _turn_mask(self) -> None:
        """Turn the mask as frames are."""
        assert self._mask is not None
        turned = np.ascontiguousarray(self._turn(self._mask))
        if not turned.any():
            found = "nothing but black in the region of interest"
            raise UserError(f"{self.options.mask} must be white where it is inspected", found, "move the region")
        self._judged_mask = turned
        if self.options.fill:
            self._paint = np.full((*turned.shape, 3), FILL, np.uint8)


def check_roi(roi: Box, frame_size: tuple[int, int]) -> None:
    """Raise `UserError` unless `roi` lies within a frame of (height, width) `frame_size`."""
    x, y, width, height = roi
    if x + width > frame_size[1] or y + height > frame_size[0]:
        raise UserError(
            f"the region {x},{y},{width},{height} must lie within the camera's frame",
            f"a frame of {frame_size[1]}x{frame_size[0]}",
            f"at most {max(0, frame_size[1] - x)}x{max(0, frame_size[0] - y)} fit from {x},{y}",
        )


def read_mask(path: Path, max_pixels: int | None = None) -> NDArray[np.uint8]:
    """Read a mask (H, W): 255 where it is white, else 0. Raises `UserError` for one that is all black or no image."""
    mask: NDArray[np.uint8] = np.where(_whitest(path, max_pixels) >= WHITE, 255, 0).astype(np.uint8)
    if not mask.any():
        raise UserError(f"{path} must be white where it is inspected", "nothing but black", "invert it")
    return mask


def _whitest(path: Path, max_pixels: int | None) -> NDArray[np.uint8]:
    channels: NDArray[np.uint8] = read_image(path, ReadOptions(max_pixels=max_pixels)).max(axis=2)
    return channels


def _quarter_turn(box: Box, size: tuple[int, int]) -> Box:
    """Return `box` after its picture of (width, height) `size` was turned clockwise by 90°."""
    x, y, width, height = box
    return size[1] - y - height, x, height, width


def _flip_box(box: Box, size: tuple[int, int], flip: str) -> Box:
    x, y, width, height = box
    if flip == "h":
        return size[0] - x - width, y, width, height
    if flip == "v":
        return x, size[1] - y - height, width, height
    return box
