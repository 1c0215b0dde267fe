"""Labels beside points and at the ends of lines, so that none covers another."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from runtime.report.charts.style import LEADING, LINE, SMALL, SOFT, written
from runtime.report.charts.text import text_width

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_HALF_MARKER, _HALF_HEIGHT = 4.0, SMALL * 0.62  # points: of a marker, and of a label's line
_DISTANCES = (2.0, 5.0, 9.0, *(14.0 + 10 * step for step in range(10)))  # points between marker and label
_SLANTS = (0.0, 0.5, -0.5, 1.0, -1.0, 2.0, -2.0)  # how far a label at a marker's side rises with the distance
_SHIFTS = (0.0, 0.5, -0.5, 0.95, -0.95)  # of a label above or below its marker, in halves of its width
_NEAR = 6.0  # a label farther than this is tied to its point by a line
# What is worse than a square point of a label on a marker or a line: a label near another point or a line through a
# label; and a label on another one or outside.
_CONFUSING, _UNREADABLE = 1e3, 1e5
_ALONG = np.linspace(0.15, 0.9, 6)  # where a line is held against labels

Numbers = NDArray[np.float64]  # boxes are (..., 4): left, bottom, right, top


@dataclass(frozen=True)
class Labelled:
    """A point in an axes' units and its label."""

    x: float
    y: float
    text: str
    colour: str


def label_points(axes: "Axes", points: Sequence[Labelled], avoid: Sequence[tuple[float, float]] = ()) -> None:
    """Write each point's label at the nearest free place; the axes' limits must be final.

    `avoid` are further places, in axes' units, that labels keep away from (points on a line).
    """
    places = np.asarray([_in_points(axes, point.x, point.y) for point in points])
    others = np.asarray([_in_points(axes, x, y) for x, y in avoid]).reshape(-1, 2)
    fixed = np.concatenate([_around(places, _HALF_MARKER, _HALF_MARKER), _around(others, 1.0, 1.0)])
    labels = np.zeros((0, 4))
    frame = axes.get_window_extent()
    for number, point in enumerate(points):
        boxes = _candidates(places[number], text_width(point.text, SMALL) / 2 + 1)
        outside = (boxes[:, :2] < frame.min).any(axis=1) | (boxes[:, 2:] > frame.max).any(axis=1)
        cost = _covered(boxes, fixed) + _UNREADABLE * (outside | (_covered(boxes, labels) > 0))
        cost += _CONFUSING * _confusing(boxes, places[number], np.delete(places, number, axis=0), labels)
        box = boxes[int(np.argmin(cost))]  # the first of the cheapest is the nearest
        labels = np.concatenate([labels, box[None]])
        _write(axes, point, places[number], box)


def _in_points(axes: "Axes", x: float, y: float) -> tuple[float, float]:
    across, up = axes.transData.transform((x, y))  # pixels, of which a `Sheet` has one to a point
    return float(across), float(up)


def _around(centres: Numbers, half_width: float, half_height: float) -> Numbers:
    half = np.asarray((half_width, half_height))
    return np.concatenate([centres - half, centres + half], axis=-1)


def _candidates(place: Numbers, half_width: float) -> Numbers:
    """Return boxes of a label around its point, the nearest first, at equal distances those at its right side."""
    offsets = []
    for distance in _DISTANCES:
        across, up = _HALF_MARKER + distance + half_width, _HALF_MARKER + distance
        offsets += [(side * across, slant * up) for side in (1, -1) for slant in _SLANTS]
        offsets += [(shift * half_width, side * (up + _HALF_HEIGHT)) for side in (1, -1) for shift in _SHIFTS]
    boxes = _around(place + np.asarray(offsets), half_width, _HALF_HEIGHT)
    return boxes[np.argsort(_gaps(boxes, place), kind="stable")]


def _gaps(boxes: Numbers, place: Numbers) -> Numbers:
    """Return how far a place is from each box."""
    gaps: Numbers = np.linalg.norm(np.maximum(np.maximum(boxes[..., :2] - place, place - boxes[..., 2:]), 0), axis=-1)
    return gaps


def _covered(boxes: Numbers, taken: Numbers) -> Numbers:
    """Return the area that each box shares with all the taken ones."""
    low = np.maximum(boxes[:, None, :2], taken[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], taken[None, :, 2:])
    shared: Numbers = np.maximum(high - low, 0).prod(axis=-1).sum(axis=-1)
    return shared


def _confusing(boxes: Numbers, place: Numbers, others: Numbers, labels: Numbers) -> NDArray[np.bool_]:
    """Return which boxes read as another point's label, or would be tied to their point through a label."""
    gaps = _gaps(boxes, place)
    tied = gaps > _HALF_MARKER + _NEAR
    nearest = np.min([_gaps(boxes, other) for other in others], axis=0, initial=np.inf) if len(others) else np.inf
    line = place + _ALONG[:, None, None] * (_nearest_in(boxes, place) - place)  # (places along it, boxes, 2)
    inside = np.logical_and(line[:, :, None] > labels[:, :2], line[:, :, None] < labels[:, 2:]).all(axis=3)
    return np.where(tied, np.any(inside, axis=(0, 2)), nearest < gaps)


def _nearest_in(boxes: Numbers, place: Numbers) -> Numbers:
    return np.clip(place, boxes[..., :2], boxes[..., 2:])


def _write(axes: "Axes", point: Labelled, place: Numbers, box: Numbers) -> None:
    middle = (box[:2] + box[2:]) / 2 - place
    style: dict[str, Any] = {
        "fontsize": SMALL,
        "ha": "center",
        "va": "center",
        "zorder": 5,
        "color": written(point.colour),
    }
    axes.annotate(point.text, (point.x, point.y), tuple(middle), textcoords="offset points", **style)
    if _gaps(box, place) > _HALF_MARKER + _NEAR:
        line = {"arrowstyle": "-", "color": SOFT, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 4}
        near = tuple(_nearest_in(box, place) - place)
        axes.annotate("", (point.x, point.y), near, textcoords="offset points", arrowprops=line)


def label_ends(axes: "Axes", ends: Sequence[Labelled], gap: float = 8.0) -> None:
    """Write the labels of lines that end at these points in a column right of the axes, tied to their ends."""
    frame = axes.get_window_extent()
    places = [_in_points(axes, end.x, end.y) for end in ends]
    heights = spread([y - frame.y0 for _, y in places], SMALL * LEADING, frame.height)
    for end, (x, y), height in zip(ends, places, heights, strict=True):
        style: dict[str, Any] = {"textcoords": "offset points", "fontsize": SMALL, "va": "center"}
        axes.annotate(
            end.text, (1, 0), (gap, height), "axes fraction", color=written(end.colour), annotation_clip=False, **style
        )
        across = (x - frame.x0) / frame.width, 1 + (gap - 1.5) / frame.width
        up = (y - frame.y0) / frame.height, height / frame.height
        axes.plot(across, up, color=LINE, linewidth=0.7, zorder=1, transform=axes.transAxes, clip_on=False)


def spread(heights: Sequence[float], least: float, top: float) -> list[float]:
    """Return `heights` moved as little as it takes to lie `least` apart, in the same order, the highest up to `top`."""
    order = sorted(range(len(heights)), key=lambda index: heights[index])
    # Blocks of neighbours that touch, each around the mean of what its members want.
    blocks: list[list[int]] = []
    for index in order:
        blocks.append([index])
        while len(blocks) > 1 and _block(heights, blocks[-1], least)[0] - _block(heights, blocks[-2], least)[1] < least:
            last = blocks.pop()
            blocks[-1] += last
    moved = [0.0] * len(heights)
    for block in blocks:
        low, _ = _block(heights, block, least)
        for number, index in enumerate(block):
            moved[index] = low + number * least
    ceiling = top
    for index in reversed(order):
        moved[index] = min(moved[index], ceiling)
        ceiling = moved[index] - least
    return moved


def _block(heights: Sequence[float], block: Sequence[int], least: float) -> tuple[float, float]:
    """Return the lowest and the highest place of a block around its members' mean height."""
    middle = sum(heights[index] for index in block) / len(block)
    half = least * (len(block) - 1) / 2
    return middle - half, middle + half
