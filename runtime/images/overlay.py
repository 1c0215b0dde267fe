"""A frame with its anomaly map over it: a picture that a person judges at a glance.

Colours mean scores, not ranks: 0 .. threshold .. maximum spans the colour map in every frame, so that
two overlays can be compared. Well below the threshold nothing is drawn, and a good frame looks as it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.images.caption import draw_caption, text_width, write
from runtime.images.opencv import opencv
from runtime.images.pixels import Image8
from runtime.result import Result

LEVELS = 2048  # steps of the colour table over 0 .. maximum
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


def _words(result: Result) -> tuple[str, ...]:
    if result.verdict == "none":
        return ("no verdict", result.reason)
    relation = ">" if result.verdict == "anomalous" else "<="
    return (result.verdict, f"score {result.image_score:.3f} {relation}", f"threshold {result.threshold:.3f}")


def score_colours(scores: NDArray[np.floating[Any]], threshold: float, maximum: float) -> Image8:
    """Return the opaque colours (..., 3) of `scores` (...) in [0, maximum]; the threshold is the middle of the map."""
    position = _colour_position(scores, threshold, maximum)
    colours: Image8 = _colour_map()[(255 * position).astype(np.uint8)]
    return colours


def _colour_position(scores: NDArray[np.floating[Any]], threshold: float, maximum: float) -> NDArray[np.float64]:
    """Return where `scores` lie on the colour map, in [0, 1]: half of it is below the threshold and half above."""
    knee = min(max(threshold, 1e-6 * maximum), (1 - 1e-6) * maximum)  # keeps the three knots in order
    position: NDArray[np.float64] = np.interp(scores, (0, knee, maximum), (0, 0.5, 1))
    return position


@lru_cache(maxsize=1)
def _colour_map() -> Image8:
    cv2 = opencv()
    bgr: Image8 = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_TURBO)[:, 0]
    return bgr[:, ::-1]


@lru_cache(maxsize=4)
def _colour_table(threshold: float, maximum: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return colour times alpha (LEVELS, 3) and 1 - alpha (LEVELS, 1) for scores 0 .. maximum."""
    scores = np.linspace(0, maximum, LEVELS)
    rgb = score_colours(scores, threshold, maximum).astype(np.float32)
    position = _colour_position(scores, threshold, maximum)
    opacity = np.interp(position, (0.5 * VISIBLE_FROM, 0.5, 1), (0, ALPHA_AT_THRESHOLD, ALPHA_AT_MAXIMUM))
    alpha = opacity.astype(np.float32)[:, None]
    return rgb * alpha, 1 - alpha


def _blend(frame: Image8, result: Result, maximum: float) -> Image8:
    cv2 = opencv()
    height, width = frame.shape[:2]
    tint, keep = _colour_table(result.map_threshold, maximum)
    levels = (np.clip(result.anomaly_map, 0, maximum) * ((LEVELS - 1) / maximum)).astype(np.float32)
    levels = cv2.resize(levels, (width, height), interpolation=cv2.INTER_LINEAR).astype(np.intp)
    visible = keep[levels, 0] < 1  # most of most frames is good: leave those pixels alone
    levels = levels[visible]
    picture: Image8 = frame.copy()
    picture[visible] = (frame[visible] * keep[levels] + tint[levels] + 0.5).astype(np.uint8)
    return picture


def _draw_contours(picture: Image8, result: Result) -> None:
    """Outline the map above the threshold, found at the map's resolution so that no region is missed."""
    cv2 = opencv()
    mask = (result.anomaly_map > result.map_threshold).astype(np.uint8)
    contours, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    scale = np.array(picture.shape[1::-1]) / np.array(mask.shape[::-1])
    centres = [(contour + 0.5) * scale - 0.5 for contour in contours]  # pixel centres of the map, in the frame
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
