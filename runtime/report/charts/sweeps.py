"""The pictures of scaling: frames per second over the batch, and speed over the number of threads."""

from collections.abc import Callable, Iterable
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

from runtime.report.charts import style
from runtime.report.schema import Report, SweepPoint

DASHES = ("-", "--", ":", "-.")  # by input size, the smallest first
Lines = dict[str, dict[int, SweepPoint]]  # by label, then by batch or number of threads, which rise


def batches_data(report: Report) -> Lines:
    """Return the lines of at least two batches in the report's own number of threads."""
    own = report.method.threads or report.machine.cores
    points = (point for point in report.sweeps if (point.threads or report.machine.cores) == own)
    return _lines(report, points, lambda point: point.timing.batch)


def threads_data(report: Report) -> Lines:
    """Return the lines of at least two numbers of threads at batch 1, from one thread on."""
    points = (point for point in report.sweeps if point.timing.batch == 1)
    lines = _lines(report, points, lambda point: point.threads or report.machine.cores)
    return {label: line for label, line in lines.items() if 1 in line}


def _lines(report: Report, points: Iterable[SweepPoint], place: Callable[[SweepPoint], int]) -> Lines:
    """Return the points by row; one that was measured twice counts as first measured."""
    lines: Lines = {}
    for point in points:
        engine = [] if point.engine == style.default_engine(report) else [point.engine]
        label = " ".join((point.name, str(point.input_size[0]), point.precision.upper(), *engine))
        if point.timing.samples_ms:
            lines.setdefault(label, {}).setdefault(place(point), point)
    return {label: dict(sorted(line.items())) for label, line in lines.items() if len(line) > 1}


def draw_batches(report: Report) -> Figure | None:
    """Draw frames per second over the batch, absolute and as multiples of batch 1; None without two batches."""
    lines = batches_data(report)
    if not lines:
        return None
    figure = style.new_figure(report, 2.4)
    absolute, relative = figure.subplots(1, 2)
    keys = _draw_lines(report, absolute, lines)
    _draw_lines(report, relative, {label: line for label, line in lines.items() if 1 in line}, relative=True)
    absolute.set(title="frames per second, logarithmic", yscale="log", xlabel="frames in a run (batch)")
    style.plain_log(absolute.yaxis, (1, 2, 5))
    relative.set(title="as a multiple of batch 1", xlabel="frames in a run (batch)", ylim=(0, None))
    style.add_title(figure, "From frames to verdicts in batches, at the median latency of a run", keys)
    return figure


def draw_threads(report: Report) -> Figure | None:
    """Draw speed over the number of threads beside the ideal; None without two numbers of threads."""
    lines = threads_data(report)
    if not lines:
        return None
    figure = style.new_figure(report, 2.2)
    axes, most = figure.subplots(), max(max(line) for line in lines.values())
    ideal = axes.plot((1, most), (1, most), color=style.GREY, linestyle=(0, (4, 3)), label="ideal")
    keys = _draw_lines(report, axes, lines, relative=True)
    axes.set(title="speed as a multiple of 1 thread", xlabel="threads")
    style.add_title(figure, "From frame to verdict with more threads, at batch 1", [*keys, *ideal])
    return figure


def _draw_lines(report: Report, axes: Axes, lines: Lines, relative: bool = False) -> list[Any]:
    """Draw lines: colour by encoder, dashes by input size, marker by precision; return them for the legend."""
    sizes = sorted({point.input_size for line in lines.values() for point in line.values()})
    colours, drawn = style.encoder_colours(report), []
    for label, line in lines.items():
        first, fps = next(iter(line.values())), [point.timing.fps for point in line.values()]
        marker = style.PRECISION_MARKERS.get(first.precision, "P")
        look: Any = {"color": colours[first.encoder], "linestyle": DASHES[sizes.index(first.input_size) % len(DASHES)]}
        heights = [value / fps[0] for value in fps] if relative else fps
        drawn += axes.plot(list(line), heights, marker=marker, mec="white", label=label, **look)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(sorted({place for line in lines.values() for place in line})))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    return drawn
