"""How the report's pictures look, and what they call rows: one page width, one palette, one type."""

import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from runtime.report.paper_table import PAPER_NAMES
from runtime.report.schema import Report, Row

WIDTH_IN = 9.375  # 900 pixels on a screen
FRAME_IN, NOTE_IN = 1.1, 0.14  # of title, legend, ticks and their names; and of a line of small print
SMALL = 7.5  # type size in points
NOTE_COLUMNS, LEGEND_COLUMNS = 150, 140  # letters in a line of the small print, and of the legend
INK, SOFT, GREY = "#1b1f24", "#56606b", "#a3a9b1"
# Okabe and Ito's colours: told apart with any colour vision, and by their lightness in print.
BLUE, SKY, GREEN, ORANGE, VERMILION, PURPLE = "#0072b2", "#56b4e9", "#009e73", "#e69f00", "#d55e00", "#cc79a7"
_COLOURS = {"resnet18": BLUE, "wide_resnet50_2": VERMILION, "mobilenet_v3_large": GREEN}  # the paper's encoders
PRECISION_MARKERS = {"fp32": "o", "bf16": "D", "fp16": "s", "int8": "^"}
OWN_STYLE: Any = {
    "figure.dpi": 72,  # an SVG's own
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 8.5,
    "svg.fonttype": "path",  # the same letters where the font is not installed
    "svg.hashsalt": "cflow-edge",  # the same names of clip paths in every run
    "text.parse_math": False,  # a file's name may hold dollars
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#e4e8ec",
    "legend.fontsize": SMALL,
}
STYLE = ["seaborn-v0_8-whitegrid", OWN_STYLE]


def new_figure(report: Report, panel_in: float, notes: Iterable[str] = ()) -> Figure:
    """Return a page for panels `panel_in` inches high and, in small print, whose figures these are."""
    threads, machine = report.method.threads, report.machine
    cores = f"all {machine.cores} cores" if threads is None else f"{threads} threads"
    measured = f"Measured on {machine.device}, {cores}, {report.method.measured_at[:10]}."
    lines = (measured, *notes, *(f"Beware: {warning}" for warning in report.conditions.warnings))
    small_print = "\n".join(textwrap.fill(line, NOTE_COLUMNS) for line in lines)
    height_in = panel_in + FRAME_IN + NOTE_IN * len(small_print.splitlines())
    figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained", facecolor="white")
    figure.supxlabel(small_print, x=0.01, ha="left", fontsize=SMALL, color=SOFT)
    return figure


def add_title(figure: Figure, title: str, keys: Sequence[Line2D]) -> None:
    """Put the title above the panels, and the legend's `keys` below it."""
    columns = LEGEND_COLUMNS // (max(len(str(key.get_label())) for key in keys) + 6)
    style: Any = {"alignment": "left", "title_fontproperties": {"weight": "bold", "size": 12}}
    figure.legend(handles=list(keys), loc="outside upper left", title=title, ncols=max(1, columns), **style)


def key(label: str, colour: Any = SOFT, marker: str = "", line: Any = "none") -> Line2D:
    """Return an entry of a legend."""
    return Line2D([], [], color=colour, marker=marker, linestyle=line, label=label, mec="white")


def plain_log(axis: Axis, factors: Sequence[float] = (1, 3)) -> None:
    """Give a logarithmic axis ticks at `factors` of the powers of ten, written as plain numbers."""
    axis.set_major_locator(LogLocator(subs=factors))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_locator(NullLocator())


def size_text(size: tuple[int, int]) -> str:
    """Return height times width."""
    return f"{size[0]} \N{MULTIPLICATION SIGN} {size[1]}"


def short_encoder(encoder: str) -> str:
    """Return the paper's short name, the encoder's own where the paper has none."""
    return PAPER_NAMES.get(encoder, encoder)


def default_engine(report: Report) -> str:
    """Return the engine that needs no naming: that of the first CFLOW-AD row, or of the first row."""
    engines = [row.engine for row in report.rows if row.kind == "cflow"] or [row.engine for row in report.rows]
    return engines[0] if engines else ""


def row_labels(report: Report, rows: Sequence[Row]) -> list[str]:
    """Return a name for each row, with its encoder or file where another row of the same size is called the same."""
    default, labels = default_engine(report), []
    for row in rows:
        precision = [] if row.precision == "fp32" else [row.precision.upper()]
        engine = [] if row.engine == default or row.engine in row.name else [row.engine]
        labels.append(", ".join((row.name, *precision, *engine)))
    called = Counter((label, row.group) for label, row in zip(labels, rows, strict=True))
    of_size = Counter((label, row.input_size) for label, row in zip(labels, rows, strict=True))
    for number, (label, row) in enumerate(zip(labels, rows, strict=True)):
        if of_size[label, row.input_size] > 1:
            labels[number] = f"{label} ({row.file if called[label, row.group] > 1 else short_encoder(row.encoder)})"
    return labels


def encoder_colours(report: Report) -> dict[str, str]:
    """Return the colour of every encoder in the report, the same in all pictures."""
    encoders = dict.fromkeys([row.encoder for row in report.rows] + [point.encoder for point in report.sweeps])
    others = [encoder for encoder in encoders if encoder not in _COLOURS]
    return _COLOURS | {encoder: (ORANGE, PURPLE, SKY, INK)[n % 4] for n, encoder in enumerate(others)}
