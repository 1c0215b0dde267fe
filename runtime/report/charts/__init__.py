"""The report's pictures, drawn with matplotlib, which nothing else in the package needs."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from runtime.common.errors import UserError
from runtime.common.files import write_bytes
from runtime.report.schema import Report


def draw_charts(report: Report, folder: Path) -> list[Path]:
    """Write the pictures that the report has figures for into `folder`, each whole; return their paths.

    The same report gives the same bytes. Raises `UserError` where matplotlib is missing.
    """
    try:
        import matplotlib
        import matplotlib.style

        from runtime.report.charts.style import STYLE
    except ImportError:
        raise UserError("the report's pictures need matplotlib", "none", "pip install 'cflow-edge[report]'") from None
    pictures: dict[str, bytes] = {}
    with matplotlib.style.context(STYLE, after_reset=True):  # whatever the user's own settings
        for name, draw in _pictures().items():
            if (figure := draw(report)) is not None:
                buffer = io.BytesIO()
                figure.savefig(buffer, format="svg", metadata={"Date": None, "Title": name.removesuffix(".svg")})
                pictures[name] = buffer.getvalue()
    for name, data in pictures.items():
        write_bytes(folder / name, data)
    return [folder / name for name in pictures]


def _pictures() -> dict[str, Callable[[Report], Any]]:
    """Return what draws each picture, or returns None where the report holds nothing for it."""
    from runtime.report.charts import accuracy, fps, latency, profile, roofline, sweeps

    return {
        "fps.svg": fps.draw,
        "latency.svg": latency.draw,
        "roofline.svg": roofline.draw,
        "batches.svg": sweeps.draw_batches,
        "threads.svg": sweeps.draw_threads,
        "accuracy.svg": accuracy.draw,
        "profile.svg": profile.draw,
    }
