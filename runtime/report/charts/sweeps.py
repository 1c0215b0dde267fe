"""The pictures of scaling: frames per second over the batch, and speed over the number of threads."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

from runtime.report.charts.style import (
    GREY,
    PRECISION_MARKERS,
    add_title,
    default_engine,
    encoder_colours,
    new_figure,
    plain_log,
)
from runtime.report.schema import Report, SweepPoint

DASHES = ("-", "--", ":", "-.")  # by input size, the smallest first


@dataclass(frozen=True)
class SweepLine:
    """One row at several batches or numbers of threads: `places` rise, `fps` belong to them."""

    label: str
    first: SweepPoint
    places: tuple[int, ...]
    fps: tuple[float, ...]

    @property
    def relative(self) -> tuple[float, ...]:
        """The frames per second as multiples of the first place's."""
        return tuple(value / self.fps[0] for value in self.fps)


def batches_data(report: Report) -> list[SweepLine]:
    """Return the lines of at least two batches in the report's own number of threads."""
    own = report.method.threads or report.machine.cores
    points = (point for point in report.sweeps if (point.threads or report.machine.cores) == own)
    return _lines(report, points, lambda point: point.timing.batch)


def threads_data(report: Report) -> list[SweepLine]:
    """Return the lines of at least two numbers of threads at batch 1, from one thread on."""
    points = (point for point in report.sweeps if point.timing.batch == 1)
    lines = _lines(report, points, lambda point: point.threads or report.machine.cores)
    return [line for line in lines if line.places[0] == 1]


def _lines(report: Report, points: Iterable[SweepPoint], place: Callable[[SweepPoint], int]) -> list[SweepLine]:
    """Return the points by row; one that was measured twice counts as first measured."""
    by_row: dict[str, dict[int, SweepPoint]] = {}
    for point in points:
        engine = [] if point.engine == default_engine(report) else [point.engine]
        label = " ".join((point.name, str(point.input_size[0]), point.precision.upper(), *engine))
        if point.timing.samples_ms:
            by_row.setdefault(label, {}).setdefault(place(point), point)
    return [
        SweepLine(label, found[min(found)], tuple(sorted(found)), tuple(found[at].timing.fps for at in sorted(found)))
        for label, found in by_row.items()
        if len(found) > 1
    ]


def draw_batches(report: Report) -> Figure | None:
    """Draw frames per second over the batch, absolute and as multiples of batch 1; None without two batches."""
    lines = batches_data(report)
    if not lines:
        return None
    figure = new_figure(report, 3.8)
    absolute, relative = figure.subplots(1, 2)
    keys = _draw_lines(report, absolute, lines, [line.fps for line in lines])
    from_one = [line for line in lines if line.places[0] == 1]
    _draw_lines(report, relative, from_one, [line.relative for line in from_one])
    absolute.set(title="frames per second, logarithmic", yscale="log", xlabel="frames in a run (batch)")
    plain_log(absolute.yaxis, (1, 2, 5))
    relative.set(title="as a multiple of batch 1", xlabel="frames in a run (batch)", ylim=(0, None))
    add_title(figure, "From frames to verdicts in batches, at the median latency of a run", keys)
    return figure


def draw_threads(report: Report) -> Figure | None:
    """Draw speed over the number of threads beside the ideal; None without two numbers of threads."""
    lines = threads_data(report)
    if not lines:
        return None
    figure = new_figure(report, 3.6)
    axes = figure.subplots()
    most = max(line.places[-1] for line in lines)
    ideal = axes.plot((1, most), (1, most), color=GREY, linestyle=(0, (4, 3)), label="ideal")
    keys = _draw_lines(report, axes, lines, [line.relative for line in lines])
    axes.set(title="speed as a multiple of 1 thread", xlabel="threads")
    add_title(figure, "From frame to verdict with more threads, at batch 1", [*keys, *ideal])
    return figure


def _draw_lines(report: Report, axes: Axes, lines: list[SweepLine], heights: list[tuple[float, ...]]) -> list[Line2D]:
    """Draw lines: colour by encoder, dashes by input size, marker by precision; return them for the legend."""
    sizes, colours = sorted({line.first.input_size for line in lines}), encoder_colours(report)
    drawn: list[Line2D] = []
    for line, values in zip(lines, heights, strict=True):
        dashes = DASHES[sizes.index(line.first.input_size) % len(DASHES)]
        marker = PRECISION_MARKERS.get(line.first.precision, "P")
        style = {"linestyle": dashes, "marker": marker, "markeredgecolor": "white", "label": line.label}
        drawn += axes.plot(line.places, values, color=colours[line.first.encoder], **style)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(sorted({place for line in lines for place in line.places})))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    return drawn
