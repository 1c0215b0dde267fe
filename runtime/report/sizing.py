"""How many boxes a plant needs: cameras and their frames a second against times that a report has measured.

A box is the machine of the report. It is busy for the mean time of a frame (the utilisation law: frames a second times
seconds a frame), and a camera stays on one box. What was not measured is called so; nothing is taken from elsewhere.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from runtime.common.errors import UserError
from runtime.common.text_table import align, plain_size
from runtime.report.schema import Report, Row, Timing
from runtime.report.tables import ReportTable, pipes

SHIPPED_KINDS = ("cflow", "camera", "engine")  # detectors as a line runs them; no baselines, no parts
NOT_MEASURED, TOO_SLOW = "not measured", "none"
ON_GPU = "TensorRT"
ROUNDING = 1e-9  # a load of exactly the limit is not above it


@dataclass(frozen=True)
class Demand:
    """What the cameras ask for: how many there are, and the frames a second of each."""

    cameras: int
    fps: float

    @property
    def title(self) -> str:
        """The head of its column."""
        return f"{self.cameras} x {self.fps:g} fps"


@dataclass(frozen=True)
class Plan:
    """How boxes are filled: `utilisation` is the share of a box's time that is planned for, in (0, 1).

    `overhead_ms` is what a frame costs beside its verdict, in milliseconds: capture, resize, writing.
    """

    demands: tuple[Demand, ...]
    utilisation: float
    overhead_ms: float = 0.0


def frame_ms(timing: Timing, overhead_ms: float) -> float:
    """Return for how long one frame keeps a box busy, in milliseconds: the mean of all runs, and what is around it."""
    return float(np.mean(timing.samples_ms)) / timing.batch + overhead_ms


def cameras_a_box(busy_ms: float, fps: float, utilisation: float) -> int:
    """Return how many cameras of `fps` frames a second one box takes, 0 where one is too much for it."""
    return math.floor(utilisation * 1e3 / (fps * busy_ms) + ROUNDING)


def boxes(busy_ms: float, demand: Demand, utilisation: float) -> int | None:
    """Return the boxes for `demand`, None where a box does not even take one camera."""
    most = cameras_a_box(busy_ms, demand.fps, utilisation)
    return math.ceil(demand.cameras / most) if most else None


def sizing(reports: Sequence[Report], plan: Plan, size: tuple[int, int] | None = None) -> ReportTable:
    """Return the table of boxes for the detectors of all reports, those of `size` (height, width) if it is given.

    Raises `UserError` where no report has measured such a detector.
    """
    measured = [(report, row) for report in reports for row in report.rows if row.kind in SHIPPED_KINDS and row.verdict]
    chosen = [(report, row) for report, row in measured if size is None or row.input_size == size]
    if not chosen:
        found = ", ".join(dict.fromkeys(plain_size(row.input_size) for _, row in measured)) or "no detector's verdict"
        wanted = "a detector's time to its verdict" + (f" at {plain_size(size)}" if size else "")
        raise UserError(f"the report must hold {wanted}", found, "measure it with runtime.report --output DIR ENGINE")
    on_gpu = {(row.name, row.input_size) for _, row in chosen if row.engine.startswith(ON_GPU)}
    rows = [_cells(report, row, plan) for report, row in chosen]
    models = dict.fromkeys((row.name, row.input_size) for _, row in chosen if row.kind == "cflow")
    rows += [_not_measured(*model, plan) for model in models if model not in on_gpu]
    named = dict.fromkeys(report.machine.device for report in reports)
    if len(named) == 1:  # then the prose names it
        rows = [{column: cell for column, cell in row.items() if column != "box"} for row in rows]
    return ReportTable("Boxes for cameras", tuple(rows), 4 + (len(named) > 1), tuple(_prose(reports, plan)))


def to_text(table: ReportTable) -> str:
    """Return the table and its prose for a terminal."""
    return "\n".join([align(table.cells(), table.left), "", *table.prose]) + "\n"


def to_markdown(table: ReportTable) -> str:
    """Return the table and its prose as Markdown."""
    return "\n".join([pipes(table), "", *(f"- {line}" for line in table.prose)]) + "\n"


def _cells(report: Report, row: Row, plan: Plan) -> dict[str, str]:
    assert row.verdict is not None
    busy_ms = frame_ms(row.verdict, plan.overhead_ms)
    cores = report.method.threads or report.machine.cores
    figures = {"busy ms": f"{busy_ms:.1f}", "p99 ms": f"{row.verdict.percentiles['p99']:.1f}"}
    needed = {
        demand.title: _boxes_and_cores(boxes(busy_ms, demand, plan.utilisation), cores) for demand in plan.demands
    }
    words = {"box": report.machine.device, "model": row.name, "size": plain_size(row.input_size)}
    return {**words, "engine": row.engine, "precision": row.precision, **figures, **needed}


def _boxes_and_cores(count: int | None, cores: int) -> str:
    return TOO_SLOW if count is None else f"{count} ({count * cores})"


def _not_measured(name: str, input_size: tuple[int, int], plan: Plan) -> dict[str, str]:
    words = {"box": "with a GPU", "model": name, "size": plain_size(input_size), "engine": ON_GPU, "precision": "any"}
    return words | dict.fromkeys(("busy ms", "p99 ms", *(demand.title for demand in plan.demands)), NOT_MEASURED)


def _prose(reports: Sequence[Report], plan: Plan) -> Iterator[str]:
    yield (
        f"cells: boxes (cores), planned at {plan.utilisation:.0%} of a box's time; {TOO_SLOW}: a box does not take one "
        "such camera"
    )
    yield (
        f"busy ms: a frame's mean time to its verdict, and {plan.overhead_ms:g} ms around it; p99 ms: the time to the "
        "verdict alone"
    )
    for report in reports:
        machine, method = report.machine, report.method
        threads = f"{method.threads or machine.cores} threads"
        yield f"a box: {machine.device}, {machine.cores} cores, {threads}; measured {method.measured_at[:10]}"
        yield from (f"warning of the report: {warning}" for warning in report.conditions.warnings)
