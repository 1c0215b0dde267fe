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

from runtime.detector import Result
from runtime.frame import Image8
from runtime.opencv import opencv

LEVELS = 2048  # steps of the colour table over 0 .. maximum
VISIBLE_FROM = 0.5  # of the threshold: below, the frame is untouched
ALPHA_AT_THRESHOLD = 0.35
ALPHA_AT_MAXIMUM = 0.65
CONTOUR_RGB = (255, 255, 255)
VERDICT_RGB = {"good": (120, 230, 120), "anomalous": (255, 110, 90)}
BAR_SHADE = 0.25  # the caption bar leaves this much of the frame's brightness
LETTER_HEIGHT = 22  # pixels of OpenCV's simplex font at scale 1
SHEET_GAP = 8  # pixels around each tile of a contact sheet
SHEET_CAPTION = 22  # pixels for the words under a tile


@dataclass(frozen=True, eq=False)
class Tile:
    """One picture of a contact sheet: uint8 (H, W, 3) and the words under it."""

    image: Image8
    caption: str


def draw(frame: Image8, result: Result, maximum: float) -> Image8:
    """Return a copy of `frame` (uint8 (H, W, 3) RGB) with map, contour and caption of `result`.

    `maximum` is the largest score that the engine can give (`Metadata.score_maximum`).
    """
    picture = _blend(frame, result, maximum)
    _draw_contours(picture, result)
    relation = ">" if result.verdict == "anomalous" else "<="
    caption = f"{result.verdict}  score {result.image_score:.3f} {relation} threshold {result.threshold:.3f}"
    _draw_caption(picture, caption, VERDICT_RGB[result.verdict])
    return picture


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
    cv2.polylines(picture, points, True, CONTOUR_RGB, thickness, cv2.LINE_AA)
    for outline in points:
        if (outline == outline[0]).all():  # a single pixel, of which polylines draws nothing
            cv2.circle(picture, outline[0, 0].tolist(), thickness + 1, CONTOUR_RGB, cv2.FILLED, cv2.LINE_AA)


def _draw_caption(picture: Image8, text: str, rgb: tuple[int, int, int]) -> None:
    """Write `text` over a darkened bar at the bottom, sized by the picture and never wider than it."""
    height, width = picture.shape[:2]
    letters = min(max(9.0, 0.028 * height), 0.5 * height)
    scale = min(letters / LETTER_HEIGHT, 0.94 * width / _text_width(text, 1.0))
    bar = min(height, round(scale * LETTER_HEIGHT * 2))
    picture[height - bar :] = (picture[height - bar :] * BAR_SHADE).astype(np.uint8)
    _write(picture, text, (round(0.03 * width), height - round(0.28 * bar)), scale, rgb)


def _font() -> Any:
    return opencv().FONT_HERSHEY_SIMPLEX


def _thickness(scale: float) -> int:
    return max(1, round(1.6 * scale))


def _text_width(text: str, scale: float) -> int:
    return int(opencv().getTextSize(text, _font(), scale, _thickness(scale))[0][0])


def _write(picture: Image8, text: str, origin: tuple[int, int], scale: float, rgb: tuple[int, int, int]) -> None:
    cv2 = opencv()
    cv2.putText(picture, text, origin, _font(), scale, rgb, _thickness(scale), cv2.LINE_AA)


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
        scale = min(0.45, tile_width / max(1, _text_width(tile.caption, 1.0)))
        _write(row, tile.caption, (x, SHEET_GAP + tile.image.shape[0] + SHEET_CAPTION - 6), scale, (230, 230, 230))
    return row


def thumbnail(image: Image8, width: int) -> Image8:
    """Return uint8 (H, W, 3) scaled to `width` pixels, its aspect ratio kept."""
    cv2 = opencv()
    height = max(1, round(image.shape[0] * width / image.shape[1]))
    interpolation = cv2.INTER_AREA if width < image.shape[1] else cv2.INTER_LINEAR
    small: Image8 = cv2.resize(image, (width, height), interpolation=interpolation)
    return small
