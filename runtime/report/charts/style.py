"""How the report's pictures look: one page, one palette, one type; and how they become bytes."""

import io
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from runtime.common.errors import UserError
from runtime.report.charts.text import text_width, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

POINTS_PER_INCH = 72
WIDTH = 675.0  # points: 900 pixels on a screen
MARGIN = 15.0
TITLE, TEXT, SMALL = 12.5, 8.5, 7.5  # type sizes in points
LEADING = 1.4  # a line's height as a multiple of its type size
INK, SOFT, LINE, FAINT = "#1b1f24", "#56606b", "#cfd4da", "#eceff2"
GREY = "#a3a9b1"  # the paper's figures, and what belongs to no family
# Okabe and Ito's colours: told apart with any colour vision, and by their lightness in print.
BLUE, SKY, GREEN, ORANGE, VERMILION, PURPLE = "#0072b2", "#56b4e9", "#009e73", "#e69f00", "#d55e00", "#cc79a7"
# The same hues, dark enough for small letters on white.
_WRITTEN = {SKY: "#1c6fa3", GREEN: "#00795a", ORANGE: "#8a5f00", VERMILION: "#b04c00", PURPLE: "#9b4a7c"}

_STYLE: Any = {  # dict[str, Any], but for matplotlib's own types
    "svg.fonttype": "path",  # the same letters where the font is not installed
    "svg.hashsalt": "cflow-edge",  # the same names of clip paths in every run
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": TEXT,
    "text.parse_math": False,  # a file's name may hold dollars
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": SOFT,
    "axes.labelsize": TEXT,
    "axes.titlecolor": INK,
    "axes.titlesize": TEXT + 0.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.8,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": SOFT,
    "ytick.labelcolor": SOFT,
    "xtick.labelsize": TEXT - 0.5,
    "ytick.labelsize": TEXT - 0.5,
    "lines.solid_capstyle": "round",
}


@contextmanager
def styled() -> Iterator[None]:
    """Let matplotlib draw in this style, whatever its user's own settings. Raises `UserError` where it is missing."""
    try:
        import matplotlib
    except ImportError:
        raise UserError("the report's pictures need matplotlib", "none", "pip install matplotlib") from None
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def written(colour: str) -> str:
    """Return the colour in which text belongs to what is drawn in `colour`."""
    return _WRITTEN.get(colour, colour)


@dataclass(frozen=True)
class Key:
    """One entry of a legend: a marker or, with `line`, a line of that style."""

    label: str
    colour: str
    marker: str = "s"
    line: Literal["", "-", "--"] = ""


class Sheet:
    """A white page: title, subtitle, legend, a body of `body` points in height, and notes in small type.

    Places on it are points from the page's left edge and from the top of its body.
    """

    def __init__(self, title: str, subtitle: str, keys: Sequence[Key], body: float, notes: Sequence[str]) -> None:
        from matplotlib.figure import Figure

        room = WIDTH - 2 * MARGIN
        titles = wrapped(title, TITLE, room, "bold")
        below_title, rows = wrapped(subtitle, TEXT, room), _legend_rows(keys, room)
        small = [line for note in notes for line in wrapped(note, SMALL, room)]
        head = [TITLE * LEADING * len(titles) + 2, TEXT * LEADING * len(below_title) + 4, TEXT * 1.7 * len(rows)]
        self._above = MARGIN + sum(head) + 8
        self._height = self._above + body + SMALL * LEADING * len(small) + 10 + MARGIN
        self.figure: Figure = Figure(
            (WIDTH / POINTS_PER_INCH, self._height / POINTS_PER_INCH), dpi=POINTS_PER_INCH, facecolor="white"
        )
        self.title = title
        y = MARGIN - self._above
        self._lines(titles, y, TITLE, color=INK, weight="bold")
        self._lines(below_title, y + head[0], TEXT)
        self._legend(rows, y + head[0] + head[1])
        self._lines(small, body + 10, SMALL)

    def axes(self, left: float, top: float, width: float, height: float) -> "Axes":
        """Return axes whose upper left corner is at (left, top)."""
        bottom = self._height - self._above - top - height
        return self.figure.add_axes((left / WIDTH, bottom / self._height, width / WIDTH, height / self._height))

    def text(self, x: float, y: float, text: str, size: float = TEXT, **style: Any) -> None:
        """Write `text` at (x, y); `style` is matplotlib's."""
        self.figure.text(*self._place(x, y), text, fontsize=size, **style)

    def _place(self, x: float, y: float) -> tuple[float, float]:
        return x / WIDTH, 1 - (self._above + y) / self._height

    def _lines(self, lines: Sequence[str], top: float, size: float, color: str = SOFT, **style: Any) -> None:
        for number, line in enumerate(lines):
            self.text(MARGIN, top + number * size * LEADING, line, size=size, color=color, va="top", **style)

    def _legend(self, rows: Sequence[Sequence[tuple[float, Key]]], top: float) -> None:
        from matplotlib.lines import Line2D

        for number, row in enumerate(rows):
            y = top + (number + 0.5) * TEXT * 1.7
            for x, key in row:
                middle = (MARGIN + x + _KEY_WIDTH / 2 - 2, y)
                ends = [(MARGIN + x, y), (MARGIN + x + _KEY_WIDTH - 4, y)] if key.line else [middle]
                places = [self._place(*end) for end in ends]
                drawn = Line2D(*zip(*places, strict=True), color=key.colour, linestyle=key.line or "none", linewidth=2)
                edge = key.colour if key.marker == "|" else "white"
                drawn.set(marker="" if key.line else key.marker, markersize=8, markeredgecolor=edge)
                self.figure.add_artist(drawn)
                self.text(MARGIN + x + _KEY_WIDTH, y, key.label, color=SOFT, va="center_baseline")


_KEY_WIDTH, _KEY_GAP = 16.0, 14.0


def _legend_rows(keys: Sequence[Key], room: float) -> list[list[tuple[float, Key]]]:
    """Return the keys with their places in their row, as many to a row as there is room for."""
    rows: list[list[tuple[float, Key]]] = []
    x = room
    for key in keys:
        width = _KEY_WIDTH + text_width(key.label, TEXT)
        if x + width > room:
            rows.append([])
            x = 0.0
        rows[-1].append((x, key))
        x += width + _KEY_GAP
    return rows


def log_ticks(ends: tuple[float, float], least: int = 3) -> list[float]:
    """Return round numbers between `ends` of a logarithmic axis, at least `least` where there are as many."""
    powers = [10.0**power for power in range(math.floor(math.log10(ends[0])), math.ceil(math.log10(ends[1])) + 1)]
    for factors in _FACTORS:
        ticks = [factor * power for power in powers for factor in factors if ends[0] <= factor * power <= ends[1]]
        if len(ticks) >= least:
            break
    return ticks


_FACTORS = (
    (1,),
    (1, 2, 5),
    (1, 1.5, 2, 3, 4, 5, 6, 8),
    *(tuple(1 + step / part for step in range(9 * part)) for part in (4, 10)),
)


def plain_ticks(axis: Any, values: Sequence[float]) -> None:
    """Put an axis's ticks at `values`, written as plain numbers."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    axis.set_major_locator(FixedLocator(list(values)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def svg_bytes(figure: "Figure", title: str) -> bytes:
    """Return the picture as SVG: the same bytes for the same picture."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Title": title})
    return buffer.getvalue()
