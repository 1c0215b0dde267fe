"""The report as text for a terminal, as Markdown, and as JSON."""

import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from runtime.common.text_table import align, plain_size
from runtime.report import paper_table
from runtime.report.ratios import Ratio, anchor_row, full_to_encoder, paper_full_to_encoder, times_anchor
from runtime.report.roofline import roof_of, roof_of_point
from runtime.report.schema import Limits, Profile, Report, Row, SweepPoint, Timing, to_json

TEXT_WIDTH = 120  # columns of a line of prose in the text report
NOTHING = "-"
# left out of a table where no row has any
OPTIONAL_COLUMNS = ("copy in ms", "copy out ms", "kernels", "GPU MB", "floor ms", "p50 / floor")
NETWORK_LEGEND = (
    "Encoder and decoders alone, as the paper timed them: no upsampling, no map copied back. full / encoder: frames "
    "per second over those of the encoder alone, median over rounds. GFLOP: a multiply-add as 2. floor: the larger of "
    "the operations over the machine's GFLOP/s and the bytes (weights, frame) over its GB/s; reached: floor over p50, "
    "above 100 % where the machine was faster than when its limit was taken."
)
PLAN_LEGEND = (
    "Of a plan the network's time is the GPU's own, without copies, and its floor has the launches of its kernels on "
    "top; an encoder's whole way ends with its taps in the GPU's memory. kernels: those that one execution launches. "
    "GPU MB: what the engine took of the GPU's memory, without the CUDA context."
)
VERDICT_LEGEND = (
    "From a frame of the input size in memory to its verdict. x CFLOW-AD: frames per second as a multiple of "
    "CFLOW-AD's in FP32 (of the first row where there is none), median over rounds. first verdict: from before the "
    "file is opened, in a fresh process. memory: the most that the process had resident. MB: the file, 10^6 bytes."
)
PROFILE_LEGEND = "Profiling costs time of its own, so only the shares count."
ACCURACY_LEGEND = "AUROC in percent, of the same files' answers in ONNX Runtime (export.verify)."

Cells = dict[str, str]  # of a row, by column


@dataclass(frozen=True)
class ReportTable:
    """A part of the report: rows of cells, the first `left` columns of which are words, and prose below them."""

    title: str
    rows: tuple[Cells, ...] = ()
    left: int = 1
    prose: tuple[str, ...] = ()

    def cells(self) -> list[tuple[str, ...]]:
        """Return the header and the rows, without optional columns that no row has."""
        shown = [
            name
            for name in self.rows[0]
            if name not in OPTIONAL_COLUMNS or any(row[name] != NOTHING for row in self.rows)
        ]
        return [tuple(shown), *(tuple(row[name] for name in shown) for row in self.rows)]


def to_text(report: Report) -> str:
    """Return the report as aligned plain text."""
    parts = []
    for table in _tables(report):
        parts.append(f"{table.title}\n{'-' * len(table.title)}")
        if table.rows:
            parts.append(align(table.cells(), table.left))
        if table.prose:
            parts.append("\n".join(textwrap.fill(line, TEXT_WIDTH, subsequent_indent="  ") for line in table.prose))
    return "\n\n".join(parts) + "\n"


def to_markdown(report: Report, pictures: Sequence[str] = ()) -> str:
    """Return the report as Markdown that shows the `pictures`, names of files beside it."""
    parts = [f"# Table 6 on {report.machine.device}" if report.limits else "# Report"]
    for table in _tables(report):
        parts.append(f"## {table.title}")
        if table.rows:
            parts.append(pipes(table))
        if table.prose:
            parts.append("\n".join(f"- {line}" for line in table.prose) if len(table.prose) > 1 else table.prose[0])
    parts += [f"![{name.rpartition('.')[0]}]({name})" for name in pictures]
    return "\n\n".join(parts) + "\n"


def pipes(table: ReportTable) -> str:
    """Return the table's cells in Markdown."""
    header, *rows = table.cells()
    rule = ["---" if index < table.left else "---:" for index in range(len(header))]
    lines = ([cell.replace("|", "\\|") for cell in row] for row in (header, rule, *rows))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


FORMATS: dict[str, Callable[[Report], str]] = {"text": to_text, "markdown": to_markdown, "json": to_json}


def _tables(report: Report) -> Iterator[ReportTable]:
    if report.conditions.warnings:
        yield ReportTable("Warnings", prose=report.conditions.warnings)
    yield from _network_tables(report)
    yield from _verdict_tables(report)
    yield from _sweep_tables(report)
    yield from _accuracy_tables(report)
    yield ReportTable("Method", prose=tuple(_method(report)))
    if report.left_out:
        yield ReportTable("Left out", prose=report.left_out)
    yield from map(_profile_table, report.profiles)


def _network_tables(report: Report) -> Iterator[ReportTable]:
    legend: tuple[str, ...] = (NETWORK_LEGEND,)
    legend += (PLAN_LEGEND,) if any(row.kernels for row in report.rows) else ()
    legend += (paper_table.NOTE,) if any(row.paper for row in report.rows) else ()
    for rows in report.groups():
        cells = tuple(_network_cells(row, row.network, rows, report) for row in rows if row.network)
        if cells:
            yield ReportTable(
                f"{rows[0].encoder} {plain_size(rows[0].input_size)}: encoder and decoders", cells, 3, legend
            )
            legend = ()  # once will do


def _network_cells(row: Row, timing: Timing, rows: Sequence[Row], report: Report) -> Cells:
    roof = roof_of(row, report.limits)
    return {
        "model": row.name,
        "engine": row.engine,
        "precision": row.precision,
        **_median_cells(timing),
        "paper fps": _figure(row.paper.fps if row.paper else None),
        "full / encoder": _ratio(full_to_encoder(row, rows)),
        "paper": _figure(paper_full_to_encoder(row, rows), ".2f"),
        "GFLOP": _figure(row.work.flops / 1e9 if row.work else None, ".2f"),
        "GFLOP/s": _figure(roof.gflops if roof else None, ".0f"),
        "floor ms": _figure(roof.floor_ms if roof else None, ".2f"),
        "reached": _percent(roof.reached if roof else None),
        "bound by": roof.bound if roof else NOTHING,
        "kernels": _figure(row.kernels.get("network"), "d"),
        "MB": f"{row.size_mb:.1f}",
        "paper MB": _figure(row.paper.size_mb if row.paper else None),
    }


def _verdict_tables(report: Report) -> Iterator[ReportTable]:
    legend: tuple[str, ...] = (VERDICT_LEGEND,)
    for rows in report.groups():
        cells = tuple(_verdict_cells(row, row.verdict, anchor_row(rows)) for row in rows if row.verdict)
        if cells:
            yield ReportTable(f"{rows[0].encoder} {plain_size(rows[0].input_size)}: frame to verdict", cells, 3, legend)
            legend = ()


def _verdict_cells(row: Row, timing: Timing, anchor: Row) -> Cells:
    return {
        "model": row.name,
        "engine": row.engine,
        "precision": row.precision,
        **{f"{name} ms": f"{ms:.2f}" for name, ms in timing.percentiles.items()},
        "runs": f"{len(timing.samples_ms)}",
        "± %": _figure(timing.noise, ".1f", 100),
        "fps": f"{timing.fps:.1f}",
        "x CFLOW-AD": _ratio(times_anchor(row, anchor)),
        "execute ms": _figure(row.stages_ms.get("execute"), ".2f"),
        "copy in ms": _figure(row.stages_ms.get("copy_in"), ".3f"),
        "copy out ms": _figure(row.stages_ms.get("copy_out"), ".3f"),
        "kernels": _figure(row.kernels.get("verdict"), "d"),
        "first verdict s": _figure(row.first_verdict_s, ".2f"),
        "memory MB": _figure(row.memory_mb, ".0f"),
        "GPU MB": _figure(row.device_memory_mb, ".0f"),
        "GFLOP": _figure(row.work.flops / 1e9 if row.work else None, ".2f"),
        "MB": f"{row.size_mb:.1f}",
    }


def _sweep_tables(report: Report) -> Iterator[ReportTable]:
    own = report.method.threads
    batches = [point for point in report.sweeps if point.threads == own]
    if batches:
        first = [point for point in batches if point.timing.batch == 1]
        cells = [_sweep_cells(point, "batch", point.timing.batch, first, report.limits) for point in batches]
        yield ReportTable("Batch", tuple(cells), 4)
    threads = [point for point in report.sweeps if point.threads != own]
    if threads:
        first = [point for point in threads if point.threads == 1]
        cells = [_sweep_cells(point, "threads", point.threads, first, None) for point in threads]
        yield ReportTable(
            "Threads", tuple({name: row[name] for name in row if name != "precision"} for row in cells), 3
        )


def _sweep_cells(
    point: SweepPoint, what: str, place: int | None, first: Sequence[SweepPoint], limits: Limits | None
) -> Cells:
    """Return a line of a sweep over `what`; `first` are the points that the others are multiples of."""
    same = (point.name, point.input_size, point.precision)
    fps = [one.timing.fps for one in first if (one.name, one.input_size, one.precision) == same]
    roof = roof_of_point(point, limits)
    return {
        "model": point.name,
        "input": plain_size(point.input_size),
        "engine": point.engine,
        "precision": point.precision,
        what: f"{place}",
        **_median_cells(point.timing),
        {"batch": "x batch 1", "threads": "x 1 thread"}[what]: _figure(
            point.timing.fps / fps[-1] if fps else None, ".2f"
        ),
        "floor ms": _figure(roof.floor_ms if roof else None, ".2f"),
        "p50 / floor": _figure(1 / roof.reached if roof else None, ".2f"),
    }


def _median_cells(timing: Timing) -> Cells:
    return {"p50 ms": f"{timing.p50:.2f}", "± %": _figure(timing.noise, ".1f", 100), "fps": f"{timing.fps:.1f}"}


def _accuracy_tables(report: Report) -> Iterator[ReportTable]:
    cells = tuple(
        {
            "file": accuracy.file,
            "precision": row.precision,
            "engine": row.engine,
            "images": f"{accuracy.images}",
            "image AUROC": _figure(accuracy.image_auroc, ".2f", 100),
            "pixel AUROC": _figure(accuracy.pixel_auroc, ".2f", 100),
            "p50 ms": f"{row.verdict.p50:.2f}",
            "MB": f"{row.size_mb:.1f}",
        }
        for accuracy in report.accuracy
        for row in report.rows
        if row.verdict and row.model_sha256 and row.model_sha256 == accuracy.model_sha256
    )
    if cells:
        yield ReportTable("Accuracy and latency", cells, 3, (ACCURACY_LEGEND,))


def _profile_table(profile: Profile) -> ReportTable:
    total = sum(group.ms for group in profile.groups)
    title = f"Layers of {profile.name} {plain_size(profile.input_size)} in {profile.engine}, {profile.precision}"
    figures = [
        (group.name, f"{group.layers}", f"{group.ms:.3f}", f"{100 * group.ms / total:.1f}") for group in profile.groups
    ]
    cells = tuple(dict(zip(("part", "layers", "ms", "%"), row, strict=True)) for row in figures)
    return ReportTable(title, cells, prose=(PROFILE_LEGEND,))


def _method(report: Report) -> Iterator[str]:
    method, machine, conditions, limits = report.method, report.machine, report.conditions, report.limits
    yield f"command: {method.command}"
    told = (machine.device, f"{machine.cores} cores", machine.clocks, machine.power_mode, machine.driver)
    yield f"machine: {', '.join(filter(None, (*told, machine.operating_system)))}"
    yield f"versions: {', '.join(f'{name} {version}' for name, version in machine.versions.items())}"
    yield (
        f"each model in a process of its own; in each round every model has a go: a run that does not count, then one "
        f"to five that do; about {method.seconds_per_group:g} s for each encoder and size, medians over all runs; "
        f"batch 1 unless said; threads: {machine.cores if method.threads is None else method.threads}"
    )
    yield "± is the standard deviation of the medians of five consecutive parts of the measurement"
    yield f"frames: random pixels (seed {method.frame_seed}) of the input size; weights: {method.weights}"
    if limits:
        rates = ", ".join(f"{kind} {rate:.0f}" for kind, rate in limits.gflops.items())
        launches = f", a launch in {limits.launch_us:.2f} µs" if limits.launch_us is not None else ""
        yield f"this machine can do: {rates} GFLOP/s, {limits.read_gb_s:.1f} GB/s{launches} ({limits.how})"
    throttled = {True: "lowered", False: "not lowered", None: "not told"}[conditions.throttled]
    yield (
        f"of the cores' time, other processes: {_percent(conditions.others_share)}, other guests of the host: "
        f"{_percent(conditions.stolen_share)}; clocks: {throttled}; last third of the rounds over the first: "
        f"{_figure(conditions.slowdown, '.3f')}"
    )
    yield f"measured: {method.measured_at}, {method.minutes:.0f} minutes"


def _figure(value: float | None, form: str = "g", times: float = 1) -> str:
    return NOTHING if value is None else f"{value * times:{form}}"


def _percent(share: float | None) -> str:
    return NOTHING if share is None else f"{share * 100:.0f} %"


def _ratio(ratio: Ratio | None) -> str:
    return _figure(ratio[0] if ratio else None, ".2f")
