"""The picture of how single verdicts spread around the median latency."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from runtime.report.charts.names import (
    TIMES,
    Size,
    encoder_colours,
    notes,
    ran,
    row_labels,
    short_encoder,
    size_text,
)
from runtime.report.charts.rows import Lines, Name, Panel, panels, write_names
from runtime.report.charts.style import FAINT, INK, SMALL, SOFT, Key, Sheet, plain_ticks
from runtime.report.charts.text import number
from runtime.report.schema import Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LINE = 25.0  # points in height
_COLUMN = 44.0  # points: of figures right of a panel
_TICKS = (0.2, 0.5, 0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.5, 2, 3, 5, 10, 20, 50)
_TICK_ROOM = 26.0  # points between two ticks' labels
_FEW = 8  # runs that are drawn one by one
_GRID = 161  # places where a distribution's density is computed
_MARKS = {"p50": "|", "p95": "d", "p99": "o"}
_HEADS = ("p50", "p99")


@dataclass(frozen=True)
class Spread:
    """One row's verdicts: milliseconds at p50, everything else as a multiple of that."""

    encoder: str
    label: str
    size: Size
    p50_ms: float
    ratios: tuple[float, ...]
    p95: float
    p99: float


def latency_data(report: Report) -> list[Spread]:
    """Return what is drawn: CFLOW-AD and engine files, as far as their verdicts were timed."""
    rows = [row for row in report.rows if row.kind in ("cflow", "engine") and ran(row.verdict)]
    found = []
    for row, label in zip(rows, row_labels(report, rows), strict=True):
        if row.verdict:
            p50, p95, p99 = (row.verdict.percentiles[name] for name in _MARKS)
            ratios = tuple(ms / p50 for ms in row.verdict.samples_ms)
            found.append(Spread(row.encoder, label, row.input_size, p50, ratios, p95 / p50, p99 / p50))
    return found


def draw_latency(report: Report) -> Sheet | None:
    """Draw the distribution of each row's verdicts; None where none were timed."""
    spreads = latency_data(report)
    if not spreads:
        return None
    names: dict[Size, list[Name]] = {}
    for spread in spreads:
        names.setdefault(spread.size, []).append((spread.encoder, spread.label))
    heights = {name: _LINE for of_size in names.values() for name in of_size}
    places, body = panels(names, heights, beside=2 * _COLUMN)
    colours, limits = encoder_colours(report), _limits(spreads)
    encoders = dict.fromkeys(spread.encoder for spread in spreads)
    keys = [Key(short_encoder(encoder), colours[encoder]) for encoder in encoders]
    keys += [Key(name, INK, marker) for name, marker in _MARKS.items()]
    sheet = Sheet(_title(spreads), _subtitle(spreads, limits[1]), keys, body, notes(report))
    write_names(sheet, places)
    for panel in places:
        axes = sheet.axes(panel.left, panel.top, panel.width, panel.lines.height)
        _set_up(axes, panel.lines, limits, panel.width)
        axes.set_title(size_text(panel.size))
        _write_columns(sheet, panel, _HEADS, -11, SOFT)
        for spread in spreads:
            if spread.size == panel.size:
                middle = panel.lines.tops[spread.encoder, spread.label] + _LINE / 2
                _draw_spread(axes, spread, middle, colours[spread.encoder], limits)
                _write_columns(sheet, panel, (f"{number(spread.p50_ms)} ms", f"{spread.p99:.2f} {TIMES}"), middle, INK)
    return sheet


def _title(spreads: Sequence[Spread]) -> str:
    low, high = (f"{pick(spread.p99 for spread in spreads):.2f}" for pick in (min, max))
    return f"One verdict in a hundred takes {low if low == high else f'{low} to {high}'} times the median or longer"


def _subtitle(spreads: Sequence[Spread], high: float) -> str:
    beyond = sum(ratio > high for spread in spreads for ratio in spread.ratios)
    left_out = f" Not drawn: {beyond} beyond the axis." if beyond else ""
    return f"From frame to verdict, as multiples of each row's median: how often, and the rare ones as dots.{left_out}"


def _limits(spreads: Sequence[Spread]) -> tuple[float, float]:
    """Return the axis: to the largest p99 and a little more, so that rare outliers do not flatten the rest."""
    low = min(min(spread.ratios) for spread in spreads)
    high = max(spread.p99 for spread in spreads)
    return max(min(low, 0.95) / 1.02, 0.2), max(high * 1.05, 1.15)


def _set_up(axes: "Axes", lines: Lines, limits: tuple[float, float], width: float) -> None:
    axes.set_xscale("log")
    axes.set_xlim(*limits)
    axes.set_ylim(lines.height, 0)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("latency ÷ p50, logarithmic")
    per_unit = width / np.log(limits[1] / limits[0])
    kept: list[float] = [1.0]
    for tick in sorted(_TICKS, key=lambda tick: abs(np.log(tick))):
        inside = limits[0] <= tick <= limits[1]
        if inside and all(abs(np.log(tick / other)) * per_unit >= _TICK_ROOM for other in kept):
            kept.append(tick)
    plain_ticks(axes.xaxis, sorted(kept))


def _draw_spread(axes: "Axes", spread: Spread, middle: float, colour: str, limits: tuple[float, float]) -> None:
    """Draw a violin, or the runs themselves where they are few; y grows downwards."""
    axes.axhline(middle, color=FAINT, linewidth=0.8, zorder=0)
    if len(spread.ratios) <= _FEW:
        axes.plot(spread.ratios, [middle] * len(spread.ratios), "o", color=colour, alpha=0.5, markersize=5, mew=0)
    else:
        grid = np.geomspace(*limits, _GRID)
        half = 0.46 * _LINE * density(spread.ratios, grid)
        seen = half > 0.02 * _LINE
        axes.fill_between(grid, middle - half, middle + half, where=seen.tolist(), color=colour, alpha=0.4, linewidth=0)
        rare = [ratio for ratio in spread.ratios if spread.p95 < ratio <= limits[1]]
        axes.plot(rare, [middle] * len(rare), "o", color=colour, alpha=0.35, markersize=2.5, mew=0)
    for ratio, marker in zip((1.0, spread.p95, spread.p99), _MARKS.values(), strict=True):
        style: dict[str, Any] = {
            "color": colour,
            "markersize": 15 if marker == "|" else 6,
            "mec": colour if marker == "|" else "white",
        }
        axes.plot([ratio], [middle], marker, **style)


def density(ratios: Sequence[float], grid: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the density of log(ratios) at `grid`, its highest place 1: a sum of normal curves of one width."""
    values = np.log(np.asarray(ratios, np.float64))
    quarter, three_quarters = np.percentile(values, (25, 75))
    scatter = min(float(np.std(values)), float(three_quarters - quarter) / 1.34) or float(np.std(values))
    width = max(0.9 * scatter * len(values) ** -0.2, float(np.log(grid[-1] / grid[0])) / len(grid))
    distances = (np.log(grid)[:, None] - values[None, :]) / width
    heights: NDArray[np.float64] = np.exp(-0.5 * distances**2).sum(axis=1)
    heights /= heights.max()
    return heights


def _write_columns(sheet: Sheet, panel: Panel, texts: Sequence[str], y: float, colour: str) -> None:
    for column, text in enumerate(texts, 1):
        right = panel.left + panel.width + column * _COLUMN
        sheet.text(right, panel.top + y, text, SMALL, color=colour, ha="right", va="center_baseline")
