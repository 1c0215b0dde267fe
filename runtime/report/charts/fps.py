"""The picture of frames per second: what was measured, and the paper's figures in grey."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runtime.report.charts.names import Size, default_engine, notes, ran, row_labels, short_engine, size_text
from runtime.report.charts.rows import Lines, Name, panels, write_names
from runtime.report.charts.style import BLUE, GREY, INK, SKY, SMALL, SOFT, Key, Sheet, log_ticks, plain_ticks
from runtime.report.charts.text import number
from runtime.report.findings import full_to_encoder, paper_full_to_encoder
from runtime.report.schema import Report, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BAR = 10.5  # points, of which a bar fills most
_VALUE_ROOM = 34.0  # points right of the longest bar for its figure
_SERIES = (
    ("paper", GREY, "the paper: encoder and decoders on a GTX 1080 (PaDiM, SPADE: whole, on an Intel i7)"),
    ("network", SKY, "here: encoder and decoders alone, as the paper counts"),
    ("verdict", BLUE, "here: frame to verdict"),
)
_IN_ONE_ENGINE = ("encoder", "cflow", "padim", "spade")
_PAPER_NOTE = (
    "Grey is Table 6 of the paper, from other machines: compare how bars of one colour relate, never grey bars with "
    "coloured ones."
)
_SCALE_NOTE = "A logarithmic axis has no zero: bars begin at its left end, and only where they end counts."


@dataclass(frozen=True)
class Speed:
    """One model's frames per second at one input size; None where there is no figure."""

    encoder: str
    label: str
    size: Size
    paper: float | None
    network: float | None
    verdict: float | None

    @property
    def values(self) -> dict[str, float]:
        """The figures that there are, by series, in the order of the bars."""
        found = {name: getattr(self, name) for name, _, _ in _SERIES}
        return {name: value for name, value in found.items() if value is not None}


def fps_data(report: Report) -> list[Speed]:
    """Return what is drawn: the paper's kinds of model in one engine, all others as they are."""
    speeds = []
    for row, label in zip(report.rows, row_labels(report, report.rows), strict=True):
        network, verdict = ran(row.network), ran(row.verdict)
        if _is_drawn(row, report) and (network or verdict):
            paper = row.paper.fps if row.paper else None
            figures = [timing.fps if timing else None for timing in (network, verdict)]
            speeds.append(Speed(row.encoder, label, row.input_size, paper, *figures))
    return speeds


def _is_drawn(row: Row, report: Report) -> bool:
    """Return whether the row is in the default engine, or nothing like it is."""
    default = default_engine(report)
    if row.kind not in _IN_ONE_ENGINE or short_engine(row.engine) == default:
        return True
    alike = [other for other in report.rows if (other.name, other.input_size) == (row.name, row.input_size)]
    return all(short_engine(other.engine) != default for other in alike)


@dataclass(frozen=True)
class Kept:
    """The share of an encoder's speed that is left with the decoders behind it, here and in the paper."""

    label: str
    size: Size
    here: float
    paper: float | None


def kept_speed(report: Report) -> Kept | None:
    """Return the first model's share that was measured like for like; None if there is none."""
    for rows in report.groups():
        for row in rows:
            here = full_to_encoder(row, rows)
            if here is not None:
                return Kept(row.name, row.input_size, here, paper_full_to_encoder(row, rows))
    return None


def draw_fps(report: Report) -> Sheet | None:
    """Draw frames per second beside the paper's; None without a measured row."""
    speeds = fps_data(report)
    if not speeds:
        return None
    slots = _slots(speeds)
    names: dict[Size, list[Name]] = {}
    for speed in speeds:
        names.setdefault(speed.size, []).append((speed.encoder, speed.label))
    places, body = panels(names, {name: _BAR * len(series) for name, series in slots.items()})
    present = {name for series in slots.values() for name in series}
    keys = [Key(label, colour) for name, colour, label in _SERIES if name in present]
    small_print = [*notes(report), *([_PAPER_NOTE] if "paper" in present else []), _SCALE_NOTE]
    sheet = Sheet(_title(report, present), "Frames of a run over its median latency.", keys, body, small_print)
    write_names(sheet, places)
    limits = _limits(speeds, min(panel.width for panel in places))
    for panel in places:
        axes = sheet.axes(panel.left, panel.top, panel.width, panel.lines.height)
        _set_up(axes, panel.lines, limits)
        axes.set_title(size_text(panel.size))
        for speed in speeds:
            if speed.size == panel.size:
                _draw_bars(axes, speed, slots[speed.encoder, speed.label], panel.lines, limits[0])
    return sheet


def _title(report: Report, present: Collection[str]) -> str:
    kept = kept_speed(report)
    if kept is None:
        return "Frames per second, here and in the paper" if "paper" in present else "Frames per second"
    paper = f"; in the paper {100 * kept.paper:.0f} %" if kept.paper else ""
    return f"{kept.label} at {size_text(kept.size)} keeps {100 * kept.here:.0f} % of its encoder's speed{paper}"


def _slots(speeds: Sequence[Speed]) -> dict[Name, list[str]]:
    """Return the series that a model has at any size, so that its bars stand at the same height in every panel."""
    found: dict[Name, set[str]] = {}
    for speed in speeds:
        found.setdefault((speed.encoder, speed.label), set()).update(speed.values)
    return {name: [series for series, _, _ in _SERIES if series in having] for name, having in found.items()}


def _limits(speeds: Sequence[Speed], width: float) -> tuple[float, float]:
    """Return the axis: from a round number to where the longest bar leaves room for its figure."""
    values = [value for speed in speeds for value in speed.values.values()]
    low = max(log_ticks((min(values) / 20, min(values) / 1.8)))
    decades = math.log10(max(values) / low) * width / (width - _VALUE_ROOM)
    return low, low * 10.0**decades


def _set_up(axes: "Axes", lines: Lines, limits: tuple[float, float]) -> None:
    axes.set_xscale("log")
    axes.set_xlim(*limits)
    axes.set_ylim(lines.height, 0)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("frames per second, logarithmic")
    plain_ticks(axes.xaxis, log_ticks(limits))


def _draw_bars(axes: "Axes", speed: Speed, slots: Sequence[str], lines: Lines, low: float) -> None:
    colours = {name: colour for name, colour, _ in _SERIES}
    for series, value in speed.values.items():
        y = lines.tops[speed.encoder, speed.label] + (slots.index(series) + 0.5) * _BAR
        axes.barh(y, value - low, 0.86 * _BAR, left=low, color=colours[series])
        text, colour = (f"{value:g}", SOFT) if series == "paper" else (number(value), INK)
        style: dict[str, Any] = {"textcoords": "offset points", "fontsize": SMALL, "va": "center_baseline"}
        axes.annotate(text, (value, y), (3, 0), color=colour, **style)
