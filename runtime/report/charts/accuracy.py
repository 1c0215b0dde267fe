"""The picture of accuracy over latency: what a faster engine costs in AUROC."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from runtime.report.charts.labels import Labelled, label_points
from runtime.report.charts.names import Size, encoder_colours, notes, ran, short_encoder, short_engine, size_text
from runtime.report.charts.style import MARGIN, SMALL, SOFT, TEXT, WIDTH, Key, Sheet, log_ticks, plain_ticks
from runtime.report.charts.text import number, shortened
from runtime.report.schema import Accuracy, Report, Row, Timing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_HEIGHT = 220.0  # points
_LEFT, _TOP, _BELOW, _BETWEEN = 30.0, 22.0, 44.0, 20.0
_STEPS = 40  # places along a latency's line that labels keep away from
_METRICS = ("image AUROC", "pixel AUROC")
_MARKERS = {"FP32": "o", "BF16": "D", "FP16": "s", "INT8": "^"}
_WIDEST_FILE = 80.0  # points
_ROOM = 1.6  # left and right of the points, as a factor
_LEAST_RANGE = 1.0  # points of AUROC that an axis shows at least: less means nothing


@dataclass(frozen=True)
class Judged:
    """One row and what its answers are worth: AUROC in percent, None where it was not computed.

    `judged_in` is the precision that the AUROC is of: another than the row's where only that was judged.
    """

    encoder: str
    size: Size
    file: str
    precision: str
    judged_in: str
    engine: str
    data: str
    images: int
    p50_ms: float
    p95_ms: float
    image: float | None
    pixel: float | None


def accuracy_data(report: Report) -> list[Judged]:
    """Return the rows whose very model was judged on labelled images, once for each set of them."""
    return [
        _judged(row, row.verdict, accuracy)
        for row in report.rows
        if row.verdict is not None and ran(row.verdict)
        for accuracy in _of_model(row, report.accuracy)
    ]


def _of_model(row: Row, known: Sequence[Accuracy]) -> list[Accuracy]:
    """Return the accuracies of the row's model: those in its precision, or all if none is."""
    same = [one for one in known if row.model_sha256 and one.model_sha256 == row.model_sha256]
    same = [one for one in same if one.image_auroc is not None or one.pixel_auroc is not None]
    return [one for one in same if one.precision.upper() == row.precision.upper()] or same


def _judged(row: Row, verdict: Timing, accuracy: Accuracy) -> Judged:
    image, pixel = (None if value is None else 100 * value for value in (accuracy.image_auroc, accuracy.pixel_auroc))
    return Judged(
        row.encoder,
        row.input_size,
        row.file,
        row.precision.upper(),
        accuracy.precision.upper(),
        short_engine(row.engine),
        accuracy.data,
        accuracy.images,
        verdict.p50,
        verdict.percentiles["p95"],
        image,
        pixel,
    )


def draw_accuracy(report: Report) -> Sheet | None:
    """Draw image and pixel AUROC over latency, a line of panels for each data set; None without judged rows."""
    judged = accuracy_data(report)
    if not judged:
        return None
    sets = list(dict.fromkeys((one.data, one.images) for one in judged))
    metrics = [metric for metric in _METRICS if any(_auroc(one, metric) is not None for one in judged)]
    colours = encoder_colours(report)
    encoders = dict.fromkeys(one.encoder for one in judged)
    precisions = dict.fromkeys(one.precision for one in judged)
    keys = [Key(short_encoder(encoder), colours[encoder], line="-") for encoder in encoders]
    keys += [Key(precision, SOFT, _MARKERS.get(precision, "X")) for precision in precisions]
    step = _TOP + _HEIGHT + _BELOW
    subtitle = (
        "Latency from frame to verdict: the marker at p50, the line to p95. Less than a point of AUROC means little."
    )
    sheet = Sheet(_title(judged), subtitle, keys, step * len(sets), notes(report))
    limits = min(one.p50_ms for one in judged) / _ROOM, max(one.p95_ms for one in judged) * _ROOM
    width = (WIDTH - 2 * MARGIN - len(metrics) * _LEFT - (len(metrics) - 1) * _BETWEEN) / len(metrics)
    for number_, (data, images) in enumerate(sets):
        for column, metric in enumerate(metrics):
            left = MARGIN + _LEFT + column * (width + _LEFT + _BETWEEN)
            axes = sheet.axes(left, _TOP + number_ * step, width, _HEIGHT)
            of_set = [one for one in judged if (one.data, one.images) == (data, images)]
            axes.set_xscale("log")
            axes.set_xlim(*limits)
            _draw_panel(axes, of_set, metric, colours, _labels(judged))
            axes.set_title(shortened(f"{metric} in percent, {data} ({images} images)", TEXT + 1, width))
    return sheet


def _auroc(one: Judged, metric: str) -> float | None:
    return one.image if metric == _METRICS[0] else one.pixel


def _title(judged: Sequence[Judged]) -> str:
    fastest = min(judged, key=lambda one: one.p50_ms)
    metric, value = _METRICS[0], fastest.image
    if value is None:
        metric, value = _METRICS[1], fastest.pixel
    how = f"{fastest.precision} in {fastest.engine}"
    return f"The fastest, {how}, takes {number(fastest.p50_ms)} ms and reaches {value:.1f} % {metric}"


def _labels(judged: Sequence[Judged]) -> dict[Judged, str]:
    """Return precision and engine; encoder, size and file only where several are drawn."""
    encoders, sizes = {one.encoder for one in judged}, {one.size for one in judged}
    found: dict[Judged, str] = {}
    for one in judged:
        parts = [short_encoder(one.encoder)] if len(encoders) > 1 else []
        parts += [size_text(one.size)] if len(sizes) > 1 else []
        parts += [one.precision, one.engine]
        parts += [f"(AUROC: {one.judged_in})"] if one.judged_in != one.precision else []
        found[one] = " ".join(parts)
    drawn = Counter((label, one.data, one.images) for one, label in found.items())
    return {
        one: f"{label}, {shortened(one.file, SMALL, _WIDEST_FILE)}" if drawn[label, one.data, one.images] > 1 else label
        for one, label in found.items()
    }


def _draw_panel(
    axes: "Axes", judged: Sequence[Judged], metric: str, colours: Mapping[str, str], labels: Mapping[Judged, str]
) -> None:
    points = [(one, value) for one in judged if (value := _auroc(one, metric)) is not None]
    _set_heights(axes, [value for _, value in points])
    for one, value in points:
        colour = colours[one.encoder]
        axes.plot([one.p50_ms, one.p95_ms], [value, value], "|-", color=colour, linewidth=1.2, markersize=6)
        style: dict[str, Any] = {"color": colour, "markersize": 7.5, "mec": "white"}
        axes.plot([one.p50_ms], [value], _MARKERS.get(one.precision, "X"), zorder=4, **style)
    plain_ticks(axes.xaxis, log_ticks(axes.get_xlim(), least=4))
    axes.set_xlabel("milliseconds, logarithmic")
    bars = [(float(ms), value) for one, value in points for ms in np.geomspace(one.p50_ms, one.p95_ms, _STEPS)]
    label_points(axes, [Labelled(one.p50_ms, value, labels[one], colours[one.encoder]) for one, value in points], bars)


def _set_heights(axes: "Axes", values: Sequence[float]) -> None:
    """Show a point of AUROC or more, and some room around the points."""
    if values:
        spare = max(_LEAST_RANGE - (max(values) - min(values)), 0.0) / 2 + 0.15 * (max(values) - min(values)) + 0.1
        axes.set_ylim(min(values) - spare, max(values) + spare)
