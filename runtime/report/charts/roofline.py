"""The roofline: what the networks reach of what processor and memory allow."""

from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from runtime.report.charts import style
from runtime.report.roofline import timing_of
from runtime.report.schema import Report, Row

MARKERS = {"encoder": "o", "cflow": "D", "padim": "s", "spade": "X"}
KIND_NAMES = {"encoder": "encoder only", "cflow": "CFLOW-AD", "padim": "PaDiM", "spade": "SPADE"}
OPERANDS = {"float32": "FP32", "bfloat16": "BF16", "float16": "FP16", "int8": "INT8"}
SMALLEST, LARGER = 5.5, 8.5  # points: the marker of the smallest input size, and of the others
NOTES = (
    "Larger marks are larger inputs. Operations and bytes are counted from the models: weights once a run, frames in "
    "and results out, not what passes between layers. Encoder and decoders alone where timed, else frame to verdict.",
)


@dataclass(frozen=True)
class RooflinePoint:
    """One row: operations per byte, and the GFLOP/s that it reached."""

    row: Row
    intensity: float
    gflops: float


def roofline_data(report: Report) -> dict[str, list[RooflinePoint]]:
    """Return the paper's kinds of model by their operands, as far as the machine's limit for those is known."""
    found: dict[str, list[RooflinePoint]] = {}
    for row in report.rows:
        timing, work = timing_of(row), row.work
        if row.kind not in MARKERS or not (timing and timing.samples_ms and work and work.flops and report.limits):
            continue
        if work.operands in report.limits.gflops:
            intensity = work.flops / (work.weight_bytes + work.frame_bytes)
            found.setdefault(work.operands, []).append(RooflinePoint(row, intensity, 1e-6 * work.flops / timing.p50))
    return found


def draw(report: Report) -> Figure | None:
    """Draw reached GFLOP/s over operations per byte under the machine's roofs, a panel for each type of operand."""
    by_operands, limits, colours = roofline_data(report), report.limits, style.encoder_colours(report)
    if not by_operands or limits is None:
        return None
    figure = style.new_figure(report, 3.2, [f"Roofs: {limits.how}", *NOTES])
    points = [point for some in by_operands.values() for point in some]
    encoders = dict.fromkeys(point.row.encoder for point in points)
    kinds = {point.row.kind for point in points}
    keys = [style.key(style.short_encoder(encoder), colours[encoder], line="-") for encoder in encoders]
    keys += [style.key(KIND_NAMES[kind], style.SOFT, marker) for kind, marker in MARKERS.items() if kind in kinds]
    style.add_title(figure, "What the networks reach of what this machine can do", keys)
    reach = [point.intensity for point in points] + [rate / limits.read_gb_s for rate in limits.gflops.values()]
    intensities = np.geomspace(min(reach) / 2, max(reach) * 2, 200)
    smallest = min(point.row.input_size for point in points)
    panels = figure.subplots(1, len(by_operands), sharex=True, sharey=True, squeeze=False)[0]
    for axes, (operands, some) in zip(panels, by_operands.items(), strict=True):
        axes.loglog(intensities, np.minimum(intensities * limits.read_gb_s, limits.gflops[operands]), color=style.SOFT)
        for point in some:
            points_wide = SMALLEST if point.row.input_size == smallest else LARGER
            look = {"color": colours[point.row.encoder], "markersize": points_wide, "markeredgecolor": "white"}
            axes.plot(point.intensity, point.gflops, MARKERS[point.row.kind], **look)
        peak = f"{limits.gflops[operands]:.0f} GFLOP/s, {limits.read_gb_s:.0f} GB/s"
        axes.set(title=f"{OPERANDS.get(operands, operands)}: {peak}", xlabel="operations per byte, logarithmic")
        style.plain_log(axes.xaxis)
        style.plain_log(axes.yaxis)
    panels[0].set_ylabel("GFLOP/s, logarithmic")
    return figure
