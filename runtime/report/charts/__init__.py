"""The report's pictures, drawn with matplotlib, which nothing else in the package needs."""

from collections.abc import Callable
from pathlib import Path

from runtime.common.files import write_bytes
from runtime.report.charts.accuracy import draw_accuracy
from runtime.report.charts.fps import draw_fps
from runtime.report.charts.latency import draw_latency
from runtime.report.charts.profile import draw_profile
from runtime.report.charts.roofline import draw_roofline
from runtime.report.charts.style import Sheet, styled, svg_bytes
from runtime.report.charts.sweeps import draw_batches, draw_threads
from runtime.report.schema import Report

# Each draws its picture, or returns None where the report holds nothing for it.
PICTURES: dict[str, Callable[[Report], Sheet | None]] = {
    "fps.svg": draw_fps,
    "latency.svg": draw_latency,
    "roofline.svg": draw_roofline,
    "batches.svg": draw_batches,
    "threads.svg": draw_threads,
    "accuracy.svg": draw_accuracy,
    "profile.svg": draw_profile,
}


def draw_charts(report: Report, folder: Path) -> list[Path]:
    """Write the pictures that the report has figures for into `folder`, each whole; return their paths.

    The same report gives the same bytes. Raises `UserError` where matplotlib is missing.
    """
    with styled():
        sheets = {name: draw(report) for name, draw in PICTURES.items()}
        pictures = {name: svg_bytes(sheet.figure, sheet.title) for name, sheet in sheets.items() if sheet}
    for name, data in pictures.items():
        write_bytes(folder / name, data)
    return [folder / name for name in pictures]
