"""A frame with its anomaly map over it: a picture that a person judges at a glance.

Colours mean scores, not ranks: 0 .. threshold .. maximum spans the colour map in every frame, so that
two overlays can be compared. Well below the threshold nothing is drawn, and a good frame looks as it is.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.images.caption import draw_caption, text_width, write
from runtime.images.opencv import opencv
from runtime.images.parts import NO_PICTURE, Part
from runtime.images.pixels import Image8
from runtime.result import Result

LEVELS = 256  # of the colour map
STRIP = 32  # rows of the frame that are coloured at a time
VISIBLE_FROM = 0.5  # of the threshold: below, the frame is untouched
ALPHA_AT_THRESHOLD = 0.35
ALPHA_AT_MAXIMUM = 0.65
CONTOUR_RGB, HALO_RGB = (255, 255, 255), (0, 0, 0)
HALO_FROM = 160  # pixels of the shorter side: a smaller frame would be halo all over
VERDICT_RGB = {"good": (120, 230, 120), "anomalous": (255, 110, 90), "none": (255, 205, 80)}
SHEET_GAP = 8  # pixels around each tile of a contact sheet
SHEET_CAPTION = 22  # pixels for the words under a tile


@dataclass(frozen=True, eq=False)
class Tile:
    """One picture of a contact sheet: uint8 (H, W, 3) and the words under it."""

    image: Image8
    caption: str


def draw(frame: Image8, result: Result, maximum: float) -> Image8:
    """Return a copy of `frame` (uint8 (H, W, 3) RGB) with map, contour and caption of `result`.

    `maximum` is the largest score that the engine can give (`Sidecar.score_maximum`).
    """
    picture = _blend(frame, result, maximum)
    _draw_contours(picture, result)
    draw_caption(picture, _words(result), VERDICT_RGB[result.verdict], *_legend(result.map_threshold, maximum))
    return picture


def draw_parts(frame: Image8, parts: Sequence[Part], result: Result, maximum: float) -> Image8:
    """Return a copy of `frame` with map and contour of each of `parts` in its region, and the caption of `result`.

    `result` is the joint one, `maximum` the largest score on its scale. A region without a picture is left out.
    """
    picture: Image8 = frame.copy()
    cv2, thickness = opencv(), max(1, round(min(frame.shape[:2]) / 400))
    shown = [part for part in parts if part.size != NO_PICTURE]
    for part in shown:
        drawn = _blend(part.view.seen(picture), part.result, part.maximum)
        _draw_contours(drawn, part.result)
        part.view.put_back(picture, drawn)
    for part in shown:
        x, y, width, height = part.view.to_camera((0, 0, part.size[1], part.size[0]), part.size)
        corner = (x + width - 1, y + height - 1)
        cv2.rectangle(picture, (x, y), corner, VERDICT_RGB[part.result.verdict], thickness)
    draw_caption(picture, _words(result), VERDICT_RGB[result.verdict], *_legend(result.map_threshold, maximum))
    return picture


def _words(result: Result) -> tuple[str, ...]:
    if result.verdict == "none":
        return ("no verdict", result.reason)
    relation = ">" if result.verdict == "anomalous" else "<="
    return (result.verdict, f"score {result.image_score:.3f} {relation}", f"threshold {result.threshold:.3f}")


def score_colours(scores: NDArray[np.floating[Any]], threshold: float, maximum: float) -> Image8:
    """Return the opaque colours (..., 3) of `scores` (...) in [0, maximum]; the threshold is the middle of the map."""
    position = _colour_position(scores, threshold, maximum)
    colours: Image8 = _colour_map()[((LEVELS - 1) * position).astype(np.uint8)]
    return colours


def _colour_position(scores: NDArray[np.floating[Any]], threshold: float, maximum: float) -> NDArray[np.float64]:
    """Return where `scores` lie on the colour map, in [0, 1]: half of it is below the threshold and half above."""
    position: NDArray[np.float64] = np.interp(scores, (0, _knee(threshold, maximum), maximum), (0, 0.5, 1))
    return position


def _knee(threshold: float, maximum: float) -> float:
    """Return the score in the middle of the colour map, strictly between its ends."""
    return min(max(threshold, 1e-6 * maximum), (1 - 1e-6) * maximum)


@lru_cache(maxsize=1)
def _colour_map() -> Image8:
    cv2 = opencv()
    bgr: Image8 = cv2.applyColorMap(np.arange(LEVELS, dtype=np.uint8)[:, None], cv2.COLORMAP_TURBO)[:, 0]
    return bgr[:, ::-1]


@lru_cache(maxsize=1)
def _colour_table() -> tuple[Image8, NDArray[np.uint8]]:
    """Return colour times alpha (LEVELS, 1, 3) and 255 times what is kept of the frame (LEVELS,), by level.

    A level is a step of the colour map, so its colour is exact; its alpha is that of the step's middle.
    """
    position = np.minimum((np.arange(LEVELS) + 0.5) / (LEVELS - 1), 1)
    opacity = np.interp(position, (0.5 * VISIBLE_FROM, 0.5, 1), (0, ALPHA_AT_THRESHOLD, ALPHA_AT_MAXIMUM))[:, None]
    tint, keep = _colour_map() * opacity, 255 * (1 - opacity[:, 0])
    return np.round(tint)[:, None].astype(np.uint8), np.round(keep).astype(np.uint8)


def _blend(frame: Image8, result: Result, maximum: float) -> Image8:
    """Return `frame` under the map's colours: where nothing is seen of the map, the frame's own pixels.

    Strip by strip and in 8 bits: what is computed on the way stays in the core's cache, and takes no fresh memory.
    """
    cv2 = opencv()
    picture: Image8 = frame.copy()
    height, width = frame.shape[:2]
    knee = _knee(result.map_threshold, maximum)
    rows, columns = _box(result.anomaly_map > VISIBLE_FROM * knee, (height, width))
    scores_at = _interpolated(result.anomaly_map, (height, width), columns, maximum)
    tint, keep = _colour_table()
    for top in range(rows.start, rows.stop, STRIP):
        part = picture[top : min(top + STRIP, rows.stop), columns]
        levels = _levels(scores_at(top, top + len(part)), knee, maximum)
        cv2.multiply(part, cv2.cvtColor(cv2.LUT(levels, keep), cv2.COLOR_GRAY2RGB), part, 1 / 255)
        cv2.add(part, cv2.applyColorMap(levels, tint), part)
    return picture


def _box(visible: NDArray[np.bool_], size: tuple[int, int]) -> tuple[slice, slice]:
    """Return the rows and columns of a frame of `size` that hold all that is interpolated from `visible` positions."""
    slices = []
    for axis, pixels in enumerate(size):
        (places,) = np.nonzero(visible.any(axis=1 - axis))
        scale = pixels / visible.shape[axis]
        first, last = (places[0], places[-1]) if len(places) else (0, -2)  # nothing: an empty slice
        slices.append(slice(max(0, math.floor((first - 1) * scale)), min(pixels, math.ceil((last + 2) * scale))))
    return slices[0], slices[1]


def _interpolated(
    anomaly_map: NDArray[np.float32], size: tuple[int, int], columns: slice, maximum: float
) -> Callable[[int, int], NDArray[np.float32]]:
    """Return what gives the scores of the frame's rows from one to another: a map as large as the frame has them."""
    cv2, (height, width) = opencv(), size
    if anomaly_map.shape == size:
        return lambda top, end: np.clip(anomaly_map[top:end, columns], 0, maximum, dtype=np.float32)
    scores = np.clip(anomaly_map, 0, maximum).astype(np.float32, copy=False)
    wide = cv2.resize(scores, (width, len(scores)), interpolation=cv2.INTER_LINEAR)[:, columns]
    return lambda top, end: _rows_between(wide, np.arange(top, end), height)


def _rows_between(wide: NDArray[np.float32], rows: NDArray[np.intp], height: int) -> NDArray[np.float32]:
    """Return `rows` of `wide` (h, W) interpolated to `height` rows, as `cv2.resize` does it for all of them."""
    place = np.clip((rows + 0.5) * (len(wide) / height) - 0.5, 0, len(wide) - 1)
    first = place.astype(np.intp)
    upper: NDArray[np.float32] = wide[first]
    lower = wide[np.minimum(first + 1, len(wide) - 1)]
    lower -= upper
    lower *= (place - first).astype(np.float32)[:, None]
    upper += lower
    return upper


def _levels(scores: NDArray[np.float32], knee: float, maximum: float) -> NDArray[np.uint8]:
    """Return the level of `scores` (H, W), 255 times their position: one straight line below the knee, one above."""
    cv2, top = opencv(), LEVELS - 1
    lower, upper = 0.5 * top / knee, 0.5 * top / (maximum - knee)  # levels a score, on either side of the knee
    below = cv2.addWeighted(scores, lower, scores, 0, -0.5, dtype=cv2.CV_8U)  # half a level off, for it rounds
    above = cv2.addWeighted(scores, upper, scores, 0, 0.5 * top - upper * knee - 0.5, dtype=cv2.CV_8U)
    levels: NDArray[np.uint8] = cv2.min(below, above) if lower > upper else cv2.max(below, above)
    return levels


def _draw_contours(picture: Image8, result: Result) -> None:
    """Outline the map above the threshold, found at the map's resolution so that no region is missed."""
    cv2 = opencv()
    mask = np.asarray(result.anomaly_map > result.map_threshold).view(np.uint8)
    x, y, across, down = cv2.boundingRect(mask)  # what lies outside need not be looked through
    contours, _ = cv2.findContours(mask[y : y + down, x : x + across], cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    scale = np.array(picture.shape[1::-1]) / np.array(mask.shape[::-1])
    centres = [(contour + (x, y) + 0.5) * scale - 0.5 for contour in contours]  # pixel centres of the map, in the frame
    points = [np.round(centre).astype(np.int32) for centre in centres]
    thickness = max(1, round(min(picture.shape[:2]) / 400))
    dots = [outline[0, 0].tolist() for outline in points if (outline == outline[0]).all()]  # polylines draws none
    halo = 2 * max(1, thickness // 2) if min(picture.shape[:2]) >= HALO_FROM else 0
    for rgb, extra in ((HALO_RGB, halo), (CONTOUR_RGB, 0)):  # white is seen on white parts too
        cv2.polylines(picture, points, True, rgb, thickness + extra, cv2.LINE_AA)
        for dot in dots:
            cv2.circle(picture, dot, thickness + 1 + extra // 2, rgb, cv2.FILLED, cv2.LINE_AA)


def _legend(threshold: float, maximum: float) -> tuple[Image8, list[str]]:
    """Return the colour map's colours from 0 to `maximum` as they are read, and its marks."""
    knee = min(max(threshold, 0.0), maximum)
    scores = np.interp(np.linspace(0, 1, 256), (0, 0.5, 1), (0, knee, maximum))
    return score_colours(scores, threshold, maximum), ["0", f"{threshold:.2f}", f"{maximum:g}"]


def contact_sheet(tiles: Sequence[Tile], columns: int, tile_width: int = 320) -> Image8:
    """Return one uint8 (H, W, 3) picture of all `tiles`, row by row, each `tile_width` pixels wide.

    Tiles keep their aspect ratio; the tallest of a row sets its height. Raises `ValueError` for no tile
    or fewer than one column.
    """
    if not tiles or columns < 1:
        raise ValueError(f"a contact sheet needs tiles and columns, got {len(tiles)} and {columns}")
    tiles = [Tile(thumbnail(tile.image, tile_width), tile.caption) for tile in tiles]
    rows = [_sheet_row(tiles[i : i + columns], columns, tile_width) for i in range(0, len(tiles), columns)]
    return np.concatenate(rows)


def _sheet_row(tiles: Sequence[Tile], columns: int, tile_width: int) -> Image8:
    height = max(tile.image.shape[0] for tile in tiles)
    row = np.full(
        (height + SHEET_CAPTION + 2 * SHEET_GAP, columns * (tile_width + SHEET_GAP) + SHEET_GAP, 3), 24, np.uint8
    )
    for column, tile in enumerate(tiles):
        x = SHEET_GAP + column * (tile_width + SHEET_GAP)
        row[SHEET_GAP : SHEET_GAP + tile.image.shape[0], x : x + tile_width] = tile.image
        scale = min(0.45, tile_width / max(1, text_width(tile.caption, 1.0)))
        write(row, tile.caption, (x, SHEET_GAP + tile.image.shape[0] + SHEET_CAPTION - 6), scale, (230, 230, 230))
    return row


def thumbnail(image: Image8, width: int) -> Image8:
    """Return uint8 (H, W, 3) scaled to `width` pixels, its aspect ratio kept."""
    cv2 = opencv()
    height = max(1, round(image.shape[0] * width / image.shape[1]))
    interpolation = cv2.INTER_AREA if width < image.shape[1] else cv2.INTER_LINEAR
    small: Image8 = cv2.resize(image, (width, height), interpolation=interpolation)
    return small
