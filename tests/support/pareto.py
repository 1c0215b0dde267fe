"""The picture of accuracy over milliseconds in docs/slim, of the figures there: `python -m tests.support.pareto`."""

import io
import json
import textwrap
from typing import Any

import matplotlib.style
from matplotlib.figure import Figure

from runtime.common.files import write_bytes
from runtime.report.charts import style
from tests.support.paths import ROOT

FOLDER = ROOT / "docs" / "slim"
SETS = ("screw", "magnetic tile")
PANEL_IN = 2.3
LEAST_RANGE = 2.0  # points that an axis shows at least
COLOURS = (style.VERMILION, style.BLUE, style.GREEN)


def drawn() -> bytes:
    """Return the picture as SVG; the same figures give the same bytes."""
    content = json.loads((FOLDER / "pareto.json").read_text())
    with matplotlib.style.context(style.STYLE, after_reset=True):
        buffer = io.BytesIO()
        _figure(content).savefig(buffer, format="svg", metadata={"Date": None, "Title": "accuracy over milliseconds"})
    return buffer.getvalue()


def _figure(content: dict[str, Any]) -> Figure:
    """Draw a line of panels for each data set, a panel for each figure of accuracy."""
    figure = Figure(figsize=(style.WIDTH_IN, PANEL_IN * len(SETS) + style.FRAME_IN), layout="constrained")
    words = textwrap.fill(content["measured"], style.NOTE_COLUMNS)
    figure.supxlabel(words, x=0.01, ha="left", fontsize=style.SMALL, color=style.SOFT)
    panels = figure.subplots(len(SETS), len(content["columns"]), squeeze=False)
    keys = {}
    for name, line in zip(SETS, panels, strict=True):
        for column, (axes, words) in enumerate(zip(line, content["columns"], strict=True)):
            for row, colour in zip(content["rows"], COLOURS, strict=True):
                if name in row:
                    look: Any = {"color": colour, "markersize": 8, "linestyle": "none", "label": row["name"]}
                    keys[row["name"]] = axes.plot(row["fp32_ms"], row[name][column], "o", **look)[0]
            low, high = axes.get_ylim()
            spare = max(LEAST_RANGE - (high - low), 0.0) / 2
            axes.set(ylim=(low - spare, high + spare), xlim=(0, None), title=f"{name}, {words} %", xlabel="ms, FP32")
    style.add_title(figure, "What slim decoders cost", list(keys.values()))
    return figure


def main() -> None:
    """Write the picture."""
    write_bytes(FOLDER / "pareto.svg", drawn())


if __name__ == "__main__":
    main()
