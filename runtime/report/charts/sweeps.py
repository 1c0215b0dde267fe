"""The pictures of scaling: frames per second over the batch, and speed over the number of threads."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runtime.report.charts.labels import Labelled, label_ends
from runtime.report.charts.names import (
    Size,
    area,
    counted,
    default_engine,
    encoder_colours,
    notes,
    ran,
    short_label,
    variant,
)
from runtime.report.charts.style import GREY, MARGIN, SMALL, SOFT, WIDTH, Sheet, log_ticks, plain_ticks
from runtime.report.charts.text import shortened, text_width
from runtime.report.schema import Report, SweepPoint

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_HEIGHT = 250.0  # points
_LEFT, _TOP, _BELOW = 36.0, 24.0, 40.0
_LABEL_GAP = 8.0
_WIDEST_LABEL = 110.0
_SPARE, _LEAST_TOP = 0.05, 1.2  # of an axis of multiples: below and above the lines, and its least upper end
_ROOM = 1.12  # left and right of the places, as a factor
_DASHES = ("-", "--", ":", "-.")  # by input size, the smallest first
_MARKERS = ("o", "s", "^", "D", "v", "P")  # by precision and engine, in their order
_IDEAL = "ideal"


@dataclass(frozen=True)
class Series:
    """One row at several batches or numbers of threads: `places` rise, `fps` belong to them."""

    encoder: str
    size: Size
    label: str
    variant: tuple[str, ...]
    places: tuple[int, ...]
    fps: tuple[float, ...]

    @property
    def relative(self) -> tuple[float, ...]:
        """The frames per second as multiples of the first place's."""
        return tuple(value / self.fps[0] for value in self.fps)


def batches_data(report: Report) -> list[Series]:
    """Return the series of at least two batches in the report's own number of threads."""
    threads = _resolved(report.method.threads, report)
    points = [point for point in report.sweeps if _resolved(point.threads, report) == threads]
    return _series(points, report, lambda point: point.timing.batch)


def threads_data(report: Report) -> list[Series]:
    """Return the series of at least two numbers of threads at batch 1, all from the same number on."""
    points = [point for point in report.sweeps if point.timing.batch == 1]
    found = _series(points, report, lambda point: _resolved(point.threads, report))
    fewest = min((series.places[0] for series in found), default=0)
    return [series for series in found if series.places[0] == fewest]


def _resolved(threads: int | None, report: Report) -> int:
    return report.machine.cores if threads is None else threads


def _series(points: Sequence[SweepPoint], report: Report, place: Callable[[SweepPoint], int]) -> list[Series]:
    """Return the points by row; one that was measured twice counts as first measured, a lone one not at all."""
    default = default_engine(report)
    by_row: dict[tuple[str, str, Size, str, str], dict[int, float]] = {}
    for point in points:
        if ran(point.timing):
            row = (point.name, point.encoder, point.input_size, point.engine, point.precision)
            by_row.setdefault(row, {}).setdefault(place(point), point.timing.fps)
    found = []
    for (name, encoder, size, engine, precision), fps in by_row.items():
        if len(fps) > 1:
            parts = variant(precision, engine, default, name)
            places = tuple(sorted(fps))
            label = short_label(name, encoder, size, parts)
            found.append(Series(encoder, size, label, tuple(parts), places, tuple(fps[at] for at in places)))
    return found


def draw_batches(report: Report) -> Sheet | None:
    """Draw frames per second over the batch, absolute and as multiples of batch 1; None without two batches."""
    series = batches_data(report)
    if not series:
        return None
    from_one = [one for one in series if one.places[0] == 1]
    subtitle = "From frames to verdicts, at the median latency of a run."
    sheet = Sheet(_batches_title(from_one), subtitle, (), _TOP + _HEIGHT + _BELOW, notes(report))
    styles = _styles(report, series)
    panels = [("frames per second, logarithmic", [(one, one.fps) for one in series])]
    if from_one:
        panels.append(("as a multiple of batch 1", [(one, one.relative) for one in from_one]))
    labels = max(text_width(_label(one), SMALL) for one in series) + _LABEL_GAP
    step = (WIDTH - 2 * MARGIN) / 2
    for index, (title, lines) in enumerate(panels):
        axes = sheet.axes(MARGIN + index * step + _LEFT, _TOP, step - _LEFT - labels - _LABEL_GAP, _HEIGHT)
        if index == 0:
            axes.set_yscale("log")
        _draw_lines(axes, lines, styles)
        axes.set_title(title)
        axes.set_xlabel("frames in a run (batch)")
    return sheet


def draw_threads(report: Report) -> Sheet | None:
    """Draw speed over the number of threads beside the ideal; None without two numbers of threads."""
    series = threads_data(report)
    if not series:
        return None
    fewest = series[0].places[0]
    subtitle = "From frame to verdict at batch 1, at the median latency of a run; the dashed grey line is ideal."
    sheet = Sheet(_threads_title(series), subtitle, (), _TOP + _HEIGHT + _BELOW, notes(report))
    labels = max(text_width(text, SMALL) for text in (_IDEAL, *map(_label, series))) + _LABEL_GAP
    axes = sheet.axes(MARGIN + _LEFT, _TOP, WIDTH - 2 * MARGIN - _LEFT - labels, _HEIGHT)
    most = max(one.places[-1] for one in series)
    ideal = (fewest, most), (1.0, most / fewest)
    axes.plot(*ideal, color=GREY, linestyle=(0, (4, 3)), linewidth=1.2)
    _draw_lines(
        axes,
        [(one, one.relative) for one in series],
        _styles(report, series),
        [Labelled(most, ideal[1][1], _IDEAL, SOFT)],
    )
    axes.set_title(f"speed as a multiple of {counted(fewest, 'thread')}")
    axes.set_xlabel("threads")
    return sheet


def _batches_title(series: Sequence[Series]) -> str:
    if not series:
        return "Frames per second by batch"
    best = max(series, key=lambda one: max(one.relative))
    batch = best.places[best.relative.index(max(best.relative))]
    if batch == 1:
        return "No batch judges more frames per second than batch 1"
    return f"A batch of {batch} judges up to {max(best.relative):.2f} times as many frames per second as batch 1"


def _threads_title(series: Sequence[Series]) -> str:
    fewest, most = series[0].places[0], max(one.places[-1] for one in series)
    speeds = [one.relative[-1] for one in series if one.places[-1] == most]
    low, high = f"{min(speeds):.2f}", f"{max(speeds):.2f}"
    several = low if low == high else f"{low} to {high}"
    return f"{most} threads are {several} times as fast as {fewest}"


def _label(one: Series) -> str:
    return shortened(one.label, SMALL, _WIDEST_LABEL)


def _styles(report: Report, series: Sequence[Series]) -> dict[Series, dict[str, Any]]:
    """Return how a line looks: colour by encoder, dashes by input size, marker by precision and engine."""
    colours = encoder_colours(report)
    sizes = sorted({one.size for one in series}, key=area)
    variants = list(dict.fromkeys(one.variant for one in series))
    return {
        one: {
            "color": colours[one.encoder],
            "linestyle": _DASHES[sizes.index(one.size) % len(_DASHES)],
            "marker": _MARKERS[variants.index(one.variant) % len(_MARKERS)],
            "markeredgecolor": "white",
            "markersize": 6,
        }
        for one in series
    }


def _draw_lines(
    axes: "Axes",
    lines: Sequence[tuple[Series, Sequence[float]]],
    styles: Mapping[Series, dict[str, Any]],
    more_ends: Sequence[Labelled] = (),
) -> None:
    """Draw the lines over a logarithmic axis of places, and name each at its right end."""
    axes.set_xscale("log", base=2)
    for one, heights in lines:
        axes.plot(one.places, heights, **styles[one])
    places = sorted({place for one, _ in lines for place in one.places})
    axes.set_xlim(places[0] / _ROOM, places[-1] * _ROOM)
    plain_ticks(axes.xaxis, places)
    if axes.get_yscale() == "log":
        plain_ticks(axes.yaxis, log_ticks(axes.get_ylim()))
    else:  # multiples of the first place: a scale on which small differences look small
        heights_drawn = [height for _, heights in lines for height in heights] + [end.y for end in more_ends]
        axes.set_ylim(min(*heights_drawn, 1.0) - _SPARE, max(*heights_drawn, _LEAST_TOP) + _SPARE)
    ends = [Labelled(one.places[-1], heights[-1], _label(one), styles[one]["color"]) for one, heights in lines]
    label_ends(axes, [*ends, *more_ends], _LABEL_GAP)
