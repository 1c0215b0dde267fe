"""The picture of frames per second: what was measured, and the paper's figures in grey."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from runtime.report.charts import style
from runtime.report.schema import Report

SERIES = {
    "paper": (style.GREY, "the paper: encoder and decoders on a GTX 1080 (PaDiM, SPADE: whole, on an Intel i7)"),
    "network": (style.SKY, "here: encoder and decoders alone, as the paper counts"),
    "verdict": (style.BLUE, "here: frame to verdict"),
}
BAR_IN = 0.125  # inches of a bar's height
Speeds = dict[tuple[int, int], dict[str, dict[str, float]]]  # frames per second by size, row and series


def fps_data(report: Report) -> Speeds:
    """Return what is drawn: encoders and CFLOW-AD in the report's first engine only, all others as they are."""
    speeds: Speeds = {}
    for row, label in zip(report.rows, style.row_labels(report, report.rows), strict=True):
        if row.kind in ("encoder", "cflow") and row.engine != style.default_engine(report):
            continue
        paper = {"paper": row.paper.fps} if row.paper and row.paper.fps else {}
        timings = {"network": row.network, "verdict": row.verdict}
        here = {name: timing.fps for name, timing in timings.items() if timing and timing.samples_ms}
        if here:
            speeds.setdefault(row.input_size, {})[label] = {**paper, **here}
    return dict(sorted(speeds.items()))


def draw(report: Report) -> Figure | None:
    """Draw frames per second beside the paper's, a panel for each input size; None without a measured row."""
    speeds = fps_data(report)
    if not speeds:
        return None
    labels = list(dict.fromkeys(label for of_size in speeds.values() for label in of_size))
    note = "Grey is the paper's Table 6, from other machines: compare bars of one colour, never grey with blue. "
    note += "A logarithmic axis has no zero: only where a bar ends counts."
    figure = style.new_figure(report, BAR_IN * 3.6 * len(labels) + 0.3, [note])
    keys = [style.key(text, colour, "s") for colour, text in SERIES.values()]
    style.add_title(figure, "Frames per second, here and in the paper", keys)
    panels = figure.subplots(1, len(speeds), sharex=True, sharey=True, squeeze=False)[0]
    for axes, (size, of_size) in zip(panels, speeds.items(), strict=True):
        _draw_bars(axes, of_size, labels)
        axes.set_title(style.size_text(size))
    return figure


def _draw_bars(axes: Axes, of_size: dict[str, dict[str, float]], labels: list[str]) -> None:
    for number, (series, (colour, _)) in enumerate(SERIES.items()):
        drawn = [(labels.index(label), fps[series]) for label, fps in of_size.items() if series in fps]
        if drawn:
            places, values = zip(*drawn, strict=True)
            bars = axes.barh([place + 0.28 * (number - 1) for place in places], values, 0.26, color=colour)
            axes.bar_label(bars, [f"{value:.3g}" for value in values], padding=2, fontsize=style.SMALL - 1)
    axes.set(xscale="log", xlabel="frames per second, logarithmic", ylim=(len(labels) - 0.5, -0.5))
    axes.set_yticks(range(len(labels)), labels)
    axes.grid(visible=False, axis="y")
    axes.margins(x=0.12)
    style.plain_log(axes.xaxis)
