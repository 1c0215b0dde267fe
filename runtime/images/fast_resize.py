"""The training resize in less time, within one grey level: two banded products in place of Pillow's sums in 8 bits.

A row of the result is a weighted sum of a few rows of the frame (Pillow's triangle, as wide as the reduction), and so
is a column. Some rows at a time share most of what they read, so that they are one small product of matrices. Between
the two directions nothing is rounded, where Pillow rounds to 8 bits.
"""

import math
from functools import lru_cache
from threading import local
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from runtime.images.opencv import opencv
from runtime.images.parallel_resize import STRIP_PIXELS, shared_pool
from runtime.images.pixels import Image8

ROWS, COLUMNS = 8, 16  # of the result in one product: with more, most of its weights are zeros
STRIP = 64  # rows of the result whose sums are in memory at a time: they fit into a core's cache
TAKEN_APART = 640 << 10  # bytes of the rows that are taken apart at a time: they stay in a core's cache
MOST_PRODUCTS = 1 << 18  # of one call: OpenBLAS divides larger ones among threads of its own, which wait for each other


_own = local()  # of each thread, its arrays by name


class Band(NamedTuple):
    """`weights` (n, k) float32 make n positions of the result, from `first` on, of k of the frame, from `low` on."""

    first: int
    low: int
    weights: NDArray[np.float32]

    @property
    def last(self) -> int:
        """The position of the result behind the band's."""
        return self.first + len(self.weights)

    @property
    def high(self) -> int:
        """The position of the frame behind the band's."""
        return self.low + int(self.weights.shape[1])


@lru_cache(maxsize=16)
def bands(pixels: int, size: int, count: int) -> tuple[Band, ...]:
    """Return Pillow's bilinear filter from `pixels` positions to `size`, `count` of the result in a band."""
    scale = pixels / size
    reach = max(scale, 1.0)  # of the triangle, to either side
    found = []
    for first in range(0, size, count):
        centres = (np.arange(first, min(first + count, size)) + 0.5) * scale - 0.5
        low, high = max(0, math.ceil(centres[0] - reach)), min(pixels, math.floor(centres[-1] + reach) + 1)
        weights = np.maximum(0, 1 - np.abs(np.arange(low, high) - centres[:, None]) / reach)
        found.append(Band(first, low, (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)))
    return tuple(found)


def resize_fast(rgb: Image8, size: tuple[int, int], cores: int) -> Image8:
    """Resize uint8 (H, W, 3) to `size` (height, width), within one grey level of `resize_in_strips`.

    Large frames by up to `cores` threads.
    """
    rows = np.ascontiguousarray(rgb).reshape(rgb.shape[0], -1)
    result: Image8 = np.empty((*size, 3), np.uint8)
    vertical = bands(rgb.shape[0], size[0], ROWS)
    strips = [vertical[i : i + STRIP // ROWS] for i in range(0, len(vertical), STRIP // ROWS)]
    threads = min(cores, len(strips), rows.size // 3 // STRIP_PIXELS)
    if threads < 2:
        for strip in strips:
            _resize_strip(rows, strip, result)
        return result
    others = [shared_pool().submit(_resize_strip, rows, strip, result) for strip in strips[: -len(strips) // threads]]
    for strip in strips[-len(strips) // threads :]:  # by this thread, while they work
        _resize_strip(rows, strip, result)
    for other in others:
        other.result()
    return result


def _resize_strip(frame: NDArray[np.uint8], strip: tuple[Band, ...], result: Image8) -> None:
    """Write the rows of `strip` into `result`, from the frame's rows (H, 3 W)."""
    cv2 = opencv()
    top, bottom = strip[0].first, strip[-1].last
    height, width = bottom - top, frame.shape[1] // 3
    summed = _scratch("summed", (height, 3 * width), np.float32)
    count = max(1, TAKEN_APART // ((strip[0].high - strip[0].low) * frame.shape[1] * summed.itemsize))
    for few in range(0, len(strip), count):
        _sum_rows(frame, strip[few : few + count], summed[strip[few].first - top :])
    lines = summed.reshape(3 * height, width)
    resized = _scratch("resized", (3 * height, result.shape[1]), np.float32)
    for band in bands(width, result.shape[1], COLUMNS):
        step = max(1, MOST_PRODUCTS // band.weights.size)
        for up in range(0, 3 * height, step):
            np.matmul(
                lines[up : up + step, band.low : band.high],
                band.weights.T,
                out=resized[up : up + step, band.first : band.last],
            )
    levels = cv2.convertScaleAbs(resized, _scratch("levels", resized.shape, np.uint8)).reshape(height, 3, -1)
    cv2.merge([levels[:, channel] for channel in range(3)], result[top:bottom])


def _sum_rows(frame: NDArray[np.uint8], some: tuple[Band, ...], summed: NDArray[np.float32]) -> None:
    """Write the rows of neighbouring bands, unrounded: each its channels one behind the other, not pixel by pixel.

    So both directions find what they sum side by side.
    """
    top, low, high = some[0].first, some[0].low, max(band.high for band in some)
    rows, columns = high - low, frame.shape[1]
    pixels = _scratch("pixels", (rows, columns), np.float32)
    planes = opencv().split(frame[low:high].reshape(rows, -1, 3))
    for channel, plane in enumerate(planes):
        pixels.reshape(rows, 3, -1)[:, channel] = plane
    for band in some:
        step = max(1, MOST_PRODUCTS // band.weights.size)
        for left in range(0, columns, step):
            np.matmul(
                band.weights,
                pixels[band.low - low : band.high - low, left : left + step],
                out=summed[band.first - top : band.last - top, left : left + step],
            )


def _scratch(name: str, shape: tuple[int, ...], kind: type[Any]) -> NDArray[Any]:
    """Return this thread's array of that name, which its next call overwrites: new memory costs more than the sums."""
    arrays, size = vars(_own), math.prod(shape)
    if len(arrays.get(name, ())) < size:
        arrays[name] = np.empty(size, kind)
    array: NDArray[Any] = arrays[name][:size]
    return array.reshape(shape)
