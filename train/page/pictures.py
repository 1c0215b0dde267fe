"""The pictures of one judged image, small enough to be embedded in a page: image, score map, predicted mask."""

import base64
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from runtime.images.opencv import opencv
from runtime.images.overlay import score_colours
from runtime.images.pixels import Image8
from runtime.images.preprocess import resize

LARGEST = (256, 384)  # height and width of a picture in pixels
JPEG_QUALITY = 85
TRUTH_RGB = (255, 40, 180)  # the outline of the ground truth: on neither a part nor the colour scale
MASK_PALETTE = ((48, 52, 60), (245, 245, 245), TRUTH_RGB)  # nothing predicted, predicted, outline
OUTLINE_WIDTH = 2  # pixels

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class ScoreScale:
    """The one colour scale of a page: 0 .. threshold .. maximum, in score units."""

    threshold: float
    maximum: float


def fit(size: tuple[int, int]) -> tuple[int, int]:
    """Return the (height, width) at which a picture of `size` = (height, width) is embedded: never larger."""
    factor = min(1.0, *(limit / side for limit, side in zip(LARGEST, size, strict=True)))
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def photograph(image: Image8, truth: Mask | None) -> str:
    """Return `image` (H, W, 3), the ground truth (H, W) outlined where given, as a data URI."""
    picture = resize(image, fit((image.shape[0], image.shape[1]))).copy()
    if truth is not None:
        _outline(picture, _shrink(truth), TRUTH_RGB)
    return _jpeg(picture)


def score_map(anomaly_map: NDArray[np.float32], scale: ScoreScale) -> str:
    """Return `anomaly_map` (H, W) in the colours of `scale` as a data URI."""
    height, width = fit((anomaly_map.shape[0], anomaly_map.shape[1]))
    small = opencv().resize(anomaly_map, (width, height), interpolation=opencv().INTER_AREA)
    return _jpeg(score_colours(small, scale.threshold, scale.maximum))


def predicted_mask(predicted: Mask, truth: Mask | None) -> str:
    """Return `predicted` (H, W) in white, the ground truth (H, W) outlined where given, as a data URI."""
    levels = _shrink(predicted).astype(np.uint8)
    if truth is not None:
        _outline(levels, _shrink(truth), (2,))
    picture = Image.fromarray(levels)
    picture.putpalette([level for colour in MASK_PALETTE for level in colour])
    return _data_uri(picture, "PNG", optimize=True)


def _shrink(mask: Mask) -> Mask:
    """Return a mask at the size of a picture; a pixel is true where any of what it covers is, so nothing vanishes."""
    height, width = fit((mask.shape[0], mask.shape[1]))
    covered = opencv().resize(mask.astype(np.float32), (width, height), interpolation=opencv().INTER_AREA)
    shrunk: Mask = covered > 0
    return shrunk


def _outline(picture: NDArray[np.uint8], mask: Mask, colour: tuple[int, ...]) -> None:
    cv2 = opencv()
    around = cv2.dilate(mask.astype(np.uint8), np.ones((5, 5), np.uint8))  # two pixels off: a thin defect stays visible
    contours, _ = cv2.findContours(around, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, contours, -1, colour, OUTLINE_WIDTH)


def _jpeg(picture: Image8) -> str:
    return _data_uri(Image.fromarray(picture), "JPEG", quality=JPEG_QUALITY, subsampling=0, optimize=True)


def _data_uri(picture: Image.Image, kind: str, **options: int | bool) -> str:
    buffer = BytesIO()
    picture.save(buffer, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
