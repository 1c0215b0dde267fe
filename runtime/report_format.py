"""What a report holds, and the three ways in which it is written: text, Markdown, JSON."""

import json
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from runtime import paper_table
from runtime.paper_table import PaperRow

SCHEMA = "cflow-edge/report/1"
TEXT_WIDTH = 120  # columns of a line of prose in the text report
NOTHING = "-"
HEADER = (
    "model",
    "precision",
    "input",
    "MB",
    "p50 ms",
    "p95 ms",
    "p99 ms",
    "execute ms",
    "fps",
    "x first",
    "paper fps",
    "paper x first",
    "paper MB",
)
PAPER_HEADER = ("Table 6 row", "input", "fps", "MB")
LEGEND = (
    "p50, p95, p99: latency from frame in memory to verdict, milliseconds a run; execute: median of the engine's own "
    "part; fps: frames of a run over its median latency; x first: speed as a multiple of the first model's, "
    "median over rounds."
)


@dataclass(frozen=True)
class Method:
    """How and where the figures were taken; `threads` None is all cores."""

    measured_at: str
    machine: str
    operating_system: str
    versions: dict[str, str]
    threads: int | None
    runs: int
    warmup: int
    batch: int
    frame_seed: int

    def lines(self) -> list[str]:
        """Return the method as lines for a person."""
        threads = "all cores" if self.threads is None else str(self.threads)
        return [
            f"machine: {self.machine}, {self.operating_system}",
            f"versions: {', '.join(f'{name} {version}' for name, version in self.versions.items())}",
            f"rounds: {self.runs} measured after {self.warmup} warm-up, models in turn within each; threads: {threads}",
            f"frames: batch {self.batch}, random pixels (seed {self.frame_seed}) of the engine's input size: no resize",
            f"measured: {self.measured_at}",
        ]


@dataclass(frozen=True)
class ModelReport:
    """The figures of one engine.

    `size_mb` counts 10^6 bytes. `latency_ms` is p50, p95 and p99 of a run from frames to verdicts,
    `stage_p50_ms` the median of each stage in it. `speed_ratio` is relative to the first model.
    """

    file: str
    precision: str
    encoder: str
    input_size: tuple[int, int]
    device: str
    size_mb: float
    latency_ms: dict[str, float]
    stage_p50_ms: dict[str, float]
    fps: float
    speed_ratio: float

    @property
    def paper_row(self) -> PaperRow | None:
        """The paper's CFLOW-AD row that fits this engine."""
        return paper_table.cflow_row(self.encoder, self.input_size)


@dataclass(frozen=True)
class Report:
    """Everything that was measured; the first model is the one that ratios refer to."""

    method: Method
    models: tuple[ModelReport, ...]

    def paper_ratio(self, model: ModelReport) -> float | None:
        """Return the paper's fps of `model`'s row over that of the first model's row, where both exist."""
        row, first = model.paper_row, self.models[0].paper_row
        return row.fps / first.fps if row and first and row.fps and first.fps else None

    def paper_rows(self) -> list[PaperRow]:
        """Return the rows of Table 6 for the encoders and sizes in this report, each once."""
        rows = (row for model in self.models for row in paper_table.rows_for(model.encoder, model.input_size))
        return list(dict.fromkeys(rows))


def to_text(report: Report) -> str:
    """Return the report as aligned plain text."""
    lines = [*_devices(report), *report.method.lines()]
    parts = [_aligned(HEADER, _rows(report)), textwrap.fill(LEGEND, TEXT_WIDTH), "\n".join(lines)]
    if paper_rows := report.paper_rows():
        parts += [f"{paper_table.source()}\n{_aligned(PAPER_HEADER, _paper_rows(paper_rows))}"]
        parts += [textwrap.fill(paper_table.NOTE, TEXT_WIDTH)]
    return "\n\n".join(parts) + "\n"


def to_markdown(report: Report) -> str:
    """Return the report as Markdown."""
    method = [f"- {line}" for line in (*_devices(report), *report.method.lines())]
    parts = ["# Report", _pipes(HEADER, _rows(report)), LEGEND, "## Method", "\n".join(method)]
    if paper_rows := report.paper_rows():
        parts += ["## The paper", f"{paper_table.source()}.", _pipes(PAPER_HEADER, _paper_rows(paper_rows))]
        parts += [paper_table.NOTE]
    return "\n\n".join(parts) + "\n"


def to_json(report: Report) -> str:
    """Return the report as JSON of schema `SCHEMA`."""
    models = [{**asdict(model), "paper": _paper_json(report, model)} for model in report.models]
    paper = {
        "source": paper_table.source(),
        "note": paper_table.NOTE,
        "rows": [asdict(row) for row in report.paper_rows()],
    }
    value = {"schema": SCHEMA, "method": asdict(report.method), "models": models, "paper": paper}
    return json.dumps(value, indent=2) + "\n"


FORMATS: dict[str, Callable[[Report], str]] = {"text": to_text, "markdown": to_markdown, "json": to_json}


def _paper_json(report: Report, model: ModelReport) -> dict[str, Any] | None:
    row = model.paper_row
    return {**asdict(row), "speed_ratio": report.paper_ratio(model)} if row else None


def _devices(report: Report) -> list[str]:
    """Return one line a device; the models are named where there are several."""
    models_on: dict[str, list[str]] = {}
    for model in report.models:
        models_on.setdefault(model.device, []).append(model.file)
    if len(models_on) == 1:
        return [f"device: {report.models[0].device}"]
    return [f"device of {', '.join(files)}: {device}" for device, files in models_on.items()]


def _rows(report: Report) -> list[tuple[str, ...]]:
    rows = []
    for model in report.models:
        paper = model.paper_row
        rows.append(
            (
                model.file,
                model.precision,
                _size(model.input_size),
                f"{model.size_mb:.1f}",
                *(f"{model.latency_ms[percentile]:.2f}" for percentile in ("p50", "p95", "p99")),
                f"{model.stage_p50_ms['execute']:.2f}",
                f"{model.fps:.1f}",
                f"{model.speed_ratio:.2f}",
                _figure(paper.fps if paper else None),
                _figure(report.paper_ratio(model), ".2f"),
                _figure(paper.size_mb if paper else None),
            )
        )
    return rows


def _paper_rows(rows: Sequence[PaperRow]) -> list[tuple[str, ...]]:
    return [
        (row.model, _size((row.input_side, row.input_side)), _figure(row.fps), _figure(row.size_mb)) for row in rows
    ]


def _size(input_size: tuple[int, int]) -> str:
    return f"{input_size[0]}x{input_size[1]}"


def _figure(value: float | None, form: str = "g") -> str:
    return NOTHING if value is None else f"{value:{form}}"


def _aligned(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return columns of equal width, the first to the left and the rest to the right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = []
    for row in (header, *rows):
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _pipes(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = ["---", *("---:" for _ in header[1:])]
    cells = [[cell.replace("|", "\\|") for cell in row] for row in (header, rule, *rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)
