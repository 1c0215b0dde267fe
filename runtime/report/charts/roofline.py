"""The roofline: what the networks reach of what processor and memory allow."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from runtime.report.charts.labels import Labelled, label_ends, label_points
from runtime.report.charts.names import (
    KIND_NAMES,
    default_engine,
    encoder_colours,
    notes,
    ran,
    short_encoder,
    short_engine,
    short_label,
    variant,
)
from runtime.report.charts.style import INK, MARGIN, SMALL, SOFT, WIDTH, Key, Sheet, log_ticks, plain_ticks
from runtime.report.charts.text import number, shortened, text_width
from runtime.report.roofline import roof_of, timing_of
from runtime.report.schema import Limits, Report, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_KINDS = ("encoder", "cflow", "padim", "spade")
_HEIGHT = 380.0  # points
_LEFT, _TOP, _RIGHT = 30.0, 22.0, 62.0
_STEPS = 120  # places along a roof
_WIDEST_LABEL = 130.0  # points
_ABOVE_SLOPE = 11.0  # points between a slope and its name
_OPERANDS = {"float32": "FP32", "bfloat16": "BF16", "float16": "FP16", "int8": "INT8"}
_MARKERS = {
    "encoder": "o",
    "cflow": "D",
    "unfused": "^",
    "eager": "v",
    "padim": "s",
    "spade": "P",
    "anomalib-cflow": "X",
    "anomalib-efficientad": "*",
    "engine": "h",
}
_SIZES = {"*": 10.0, "D": 6.0}  # of markers, in points, so that all look alike


@dataclass(frozen=True)
class Reached:
    """One row: operations per byte, GFLOP/s, and those as a share of its roof (None: not measured for its operands)."""

    encoder: str
    kind: str
    label: str
    intensity: float
    gflops: float
    share: float | None


def roofline_data(report: Report) -> list[Reached]:
    """Return the paper's kinds of model, their work counted and timed; none without the machine's limits.

    Other forms of the same model would lie beside it and cover its name.
    """
    found = []
    for row in (row for row in report.rows if row.kind in _KINDS):
        timing, work = ran(timing_of(row)), row.work
        if report.limits and timing and work and work.flops > 0:
            roof = roof_of(row, report.limits)
            intensity = work.flops / (work.weight_bytes + work.frame_bytes)
            gflops = 1e-6 * work.flops / timing.p50
            share = roof.reached if roof else None
            found.append(Reached(row.encoder, row.kind, _label(row, report), intensity, gflops, share))
    return found


def _label(row: Row, report: Report) -> str:
    """Return a short label, with the engine only where that is what tells the row from another one."""
    alike = [other for other in report.rows if other.key[:3] == row.key[:3] and other.precision == row.precision]
    default = default_engine(report) if len(alike) > 1 else short_engine(row.engine)
    return short_label(row.name, row.encoder, row.input_size, variant(row.precision, row.engine, default))


def draw_roofline(report: Report) -> Sheet | None:
    """Draw reached GFLOP/s over operations per byte, under the machine's roofs; None without them or without rows."""
    points, limits = roofline_data(report), report.limits
    if not points or limits is None:
        return None
    colours = encoder_colours(report)
    encoders, kinds = (
        list(dict.fromkeys(values)) for values in zip(*((p.encoder, p.kind) for p in points), strict=True)
    )
    keys = [Key(short_encoder(encoder), colours[encoder], line="-") for encoder in encoders]
    keys += [Key(KIND_NAMES.get(kind, kind), SOFT, _MARKERS.get(kind, "o")) for kind in kinds]
    small_print = [
        *notes(report),
        f"Roofs: {limits.how}",
        "Operations and bytes are counted from the models: weights once a run, frames in and results out; what passes "
        "between layers is not counted. Encoder and decoders alone where they were timed, else frame to verdict.",
    ]
    subtitle = (
        "Operations per second over operations per byte of weights and frames. The lines are what this machine can do."
    )
    sheet = Sheet(_title(points), subtitle, keys, _TOP + _HEIGHT + 38, small_print)
    axes = sheet.axes(MARGIN + _LEFT, _TOP, WIDTH - 2 * MARGIN - _LEFT - _RIGHT, _HEIGHT)
    _set_up(axes, points, limits)
    roofs = _draw_roofs(axes, limits)
    for point in points:
        marker = _MARKERS.get(point.kind, "o")
        style: dict[str, Any] = {
            "color": colours[point.encoder],
            "markersize": _SIZES.get(marker, 7.0),
            "mec": "white",
            "mew": 0.6,
        }
        axes.plot([point.intensity], [point.gflops], marker, zorder=4, **style)
    labels = [
        Labelled(point.intensity, point.gflops, shortened(point.label, SMALL, _WIDEST_LABEL), colours[point.encoder])
        for point in points
    ]
    label_points(axes, labels, roofs)
    return sheet


def _title(points: Sequence[Reached]) -> str:
    own = [point for point in points if point.kind in ("cflow", "engine")]
    shares = [100 * point.share for point in own or points if point.share is not None]
    if not shares:
        return "What the networks reach of what this machine can do"
    low, high = f"{min(shares):.0f}", f"{max(shares):.0f}"
    name = KIND_NAMES["cflow"] if own else "What was timed"
    return f"{name} reaches {low if low == high else f'{low} to {high}'} % of what processor and memory allow"


def _set_up(axes: "Axes", points: Sequence[Reached], limits: Limits) -> None:
    ridge = max(limits.gflops.values(), default=1.0) / limits.read_gb_s
    intensities, reached = [point.intensity for point in points], [point.gflops for point in points]
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(min(*intensities, ridge) / 2.5, max(*intensities, ridge) * 2.5)
    axes.set_ylim(min(reached) / 1.6, max([*limits.gflops.values(), *reached]) * 1.6)
    axes.set_xlabel("operations per byte, logarithmic")
    axes.set_title("GFLOP/s, logarithmic")
    plain_ticks(axes.xaxis, log_ticks(axes.get_xlim(), least=4))
    plain_ticks(axes.yaxis, log_ticks(axes.get_ylim(), least=4))


def _draw_roofs(axes: "Axes", limits: Limits) -> list[tuple[float, float]]:
    """Draw and name the slope and the horizontals; return places along them that labels keep away from."""
    left, right = axes.get_xlim()
    highest = max(limits.gflops.values(), default=axes.get_ylim()[1])
    slope = np.geomspace(left, min(right, highest / limits.read_gb_s), _STEPS)
    axes.plot(slope, slope * limits.read_gb_s, color=SOFT, linewidth=1.2)
    along = [(float(x), float(x) * limits.read_gb_s) for x in slope]
    ends = []
    for operands, gflops in limits.gflops.items():
        level = np.geomspace(min(gflops / limits.read_gb_s, right), right, _STEPS)
        axes.plot(level, np.full_like(level, gflops), color=SOFT, linewidth=1.2)
        along += [(float(x), gflops) for x in level]
        ends.append(Labelled(right, gflops, f"{_OPERANDS.get(operands, operands)} {number(gflops)}", INK))
    label_ends(axes, ends, gap=5.0)
    return along + _name_slope(axes, limits, slope[-1])


def _name_slope(axes: "Axes", limits: Limits, ridge: float) -> list[tuple[float, float]]:
    """Write the memory's speed along its slope; return the places that this covers."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    frame = axes.get_window_extent()
    per_decade = frame.width / math.log10(right / left), frame.height / math.log10(top / bottom)
    start = max(left, bottom / limits.read_gb_s)
    middle = math.sqrt(start * ridge)
    text = f"memory {number(limits.read_gb_s)} GB/s"
    style: dict[str, Any] = {"fontsize": SMALL, "ha": "center", "va": "center", "rotation_mode": "anchor", "color": INK}
    angle = math.degrees(math.atan2(per_decade[1], per_decade[0]))
    above = 10 ** (_ABOVE_SLOPE / per_decade[1])  # as a factor of the height
    axes.text(middle, middle * limits.read_gb_s * above, text, rotation=angle, **style)
    reach = text_width(text, SMALL) * math.cos(math.radians(angle)) / 2 / per_decade[0]
    covered = np.geomspace(middle / 10**reach, middle * 10**reach, _STEPS)
    return [(float(x), float(x) * limits.read_gb_s * factor) for x in covered for factor in (math.sqrt(above), above)]
