"""Panels side by side, one an input size, whose lines are models under the name of their encoder."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from runtime.report.charts.names import Size, area, short_encoder
from runtime.report.charts.style import INK, MARGIN, SOFT, TEXT, WIDTH, Sheet
from runtime.report.charts.text import shortened, text_width

HEADING, GAP = 20.0, 5.0  # points: an encoder's name, and what is between two lines
COLUMNS, BETWEEN = 2, 22.0
_WIDEST_LABEL = 230.0
_ABOVE, _BELOW = 24.0, 38.0  # of a panel: its title, its ticks and the axis's name

Name = tuple[str, str]  # encoder, label


@dataclass(frozen=True)
class Lines:
    """Where every model's line is, in points from the top of a panel."""

    tops: dict[Name, float]
    heights: dict[Name, float]
    headings: dict[str, float]
    height: float


@dataclass(frozen=True)
class Panel:
    """The place of one input size's panel on its sheet, and its lines."""

    size: Size
    left: float
    top: float
    width: float
    lines: Lines


def panels(
    names: Mapping[Size, Sequence[Name]], heights: Mapping[Name, float], beside: float = 0.0
) -> tuple[list[Panel], float]:
    """Return a panel for each size, smallest first, and the height of all; `beside` is kept free right of each.

    `names` are the lines that a size has; panels side by side have the same ones, of these `heights`.
    """
    ordered = sorted(names, key=area)
    columns = min(COLUMNS, len(ordered))
    start = MARGIN + _label_width(heights) + 10
    width = (WIDTH - MARGIN - start - (columns - 1) * BETWEEN) / columns - beside
    found, top = [], 0.0
    for first in range(0, len(ordered), columns):
        sizes = ordered[first : first + columns]
        shown = {name for size in sizes for name in names[size]}
        lines = _stack({name: height for name, height in heights.items() if name in shown})
        for column, size in enumerate(sizes):
            found.append(Panel(size, start + column * (width + beside + BETWEEN), top + _ABOVE, width, lines))
        top += _ABOVE + lines.height + _BELOW
    return found, top


def _stack(heights: Mapping[Name, float]) -> Lines:
    """Return lines of these heights below each other, those of an encoder together."""
    tops: dict[Name, float] = {}
    headings: dict[str, float] = {}
    y = 0.0
    encoders = list(dict.fromkeys(encoder for encoder, _ in heights))
    for name in sorted(heights, key=lambda name: encoders.index(name[0])):
        if name[0] not in headings:
            headings[name[0]] = y + HEADING / 2
            y += HEADING
        tops[name] = y
        y += heights[name] + GAP
    return Lines(tops, dict(heights), headings, y)


def _label_width(names: Iterable[Name]) -> float:
    """Return the room that the labels need, in points."""
    widths = [text_width(label, TEXT) for _, label in names] + [text_width(encoder, TEXT) for encoder, _ in names]
    return min(max(widths), _WIDEST_LABEL)


def write_names(sheet: Sheet, drawn: Sequence[Panel]) -> None:
    """Write encoders and labels left of the first panel of each row of panels."""
    start = min(panel.left for panel in drawn)
    for panel in drawn:
        if panel.left > start:
            continue
        for encoder, y in panel.lines.headings.items():
            sheet.text(MARGIN, panel.top + y + 2, short_encoder(encoder), color=INK, weight="bold", va="center")
        for name, y in panel.lines.tops.items():
            middle = panel.top + y + panel.lines.heights[name] / 2
            label = shortened(name[1], TEXT, start - 10 - MARGIN)
            sheet.text(start - 10, middle, label, color=SOFT, ha="right", va="center")
