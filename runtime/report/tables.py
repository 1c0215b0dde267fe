"""The report as text for a terminal, as Markdown, and as JSON."""

import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from runtime.common.text_table import align
from runtime.report import paper_table
from runtime.report.findings import anchor_row, findings, full_to_encoder, paper_full_to_encoder, times_anchor
from runtime.report.roofline import roof_of, roof_of_point
from runtime.report.schema import Limits, Profile, Report, Row, SweepPoint, Timing, to_json

TEXT_WIDTH = 120  # columns of a line of prose in the text report
NOTHING = "-"
NETWORK_HEADER = (
    "model", "engine", "precision", "p50 ms", "± %", "fps", "paper fps", "full / encoder", "paper", "GFLOP", "GFLOP/s",
    "floor ms", "reached", "bound by", "kernels", "MB", "paper MB",
)  # fmt: skip
VERDICT_HEADER = (
    "model", "engine", "precision", "p50 ms", "p95 ms", "p99 ms", "runs", "± %", "fps", "x CFLOW-AD", "execute ms",
    "copy in ms", "copy out ms", "kernels", "first verdict s", "memory MB", "GPU MB", "GFLOP", "MB",
)  # fmt: skip
PLAN_COLUMNS = ("copy in ms", "copy out ms", "kernels", "GPU MB")
BATCH_HEADER = (
    "model", "input", "engine", "precision", "batch", "p50 ms", "± %", "fps", "x batch 1", "floor ms", "p50 / floor",
)  # fmt: skip
THREAD_HEADER = ("model", "input", "engine", "threads", "p50 ms", "± %", "fps", "x 1 thread")
ACCURACY_HEADER = ("file", "precision", "engine", "images", "image AUROC", "pixel AUROC", "p50 ms", "MB")
NETWORK_LEGEND = (
    "Encoder and decoders alone, as the paper timed them: a frame in, the taps' likelihoods out; no upsampling, no map "
    "copied back. full / encoder: frames per second over those of the encoder alone in the same engine and precision, "
    "median over rounds. GFLOP: of convolutions and matrix products, a multiply-add as 2. floor: the larger of the "
    "operations over the machine's GFLOP/s and the bytes (weights, frame) over its GB/s; reached: "
    "floor over p50, above 100 % where the machine was faster than when its limit was taken."
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


@dataclass(frozen=True)
class Table:
    """A part of the report: prose and, with a header, rows of cells."""

    title: str
    prose: tuple[str, ...] = ()
    header: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    left: int = 1  # columns that are words


def to_text(report: Report) -> str:
    """Return the report as aligned plain text."""
    parts = []
    for table in _tables(report):
        parts.append(f"{table.title}\n{'-' * len(table.title)}")
        if table.rows:
            parts.append(align([table.header, *table.rows], table.left))
        if table.prose:
            parts.append("\n".join(textwrap.fill(line, TEXT_WIDTH, subsequent_indent="  ") for line in table.prose))
    return "\n\n".join(parts) + "\n"


def to_markdown(report: Report, pictures: Sequence[str] = ()) -> str:
    """Return the report as Markdown that shows the `pictures`, names of files beside it."""
    parts = [f"# Table 6 on {report.machine.device}" if report.limits else "# Report"]
    for table in _tables(report):
        parts.append(f"## {table.title}")
        if table.rows:
            parts.append(_pipes(table))
        parts += [f"- {line}" for line in table.prose] if len(table.prose) > 1 else table.prose
    for name in pictures:
        parts.append(f"![{name.rpartition('.')[0]}]({name})")
    return _without_gaps_in_lists("\n\n".join(parts)) + "\n"


def to_json_with_findings(report: Report) -> str:
    """Return the report as JSON, with what it says in sentences beside what that is computed from."""
    said = [{**asdict(finding), "sentence": finding.sentence} for finding in findings(report)]
    return to_json(report, {"findings": said})


FORMATS: dict[str, Callable[[Report], str]] = {"text": to_text, "markdown": to_markdown, "json": to_json_with_findings}


def _tables(report: Report) -> Iterator[Table]:
    if report.conditions.warnings:
        yield Table("Warnings", report.conditions.warnings)
    yield from _network_tables(report)
    yield from _verdict_tables(report)
    if said := tuple(finding.sentence for finding in findings(report)):
        note = (paper_table.NOTE,) if any(finding.paper for finding in findings(report)) else ()
        yield Table("In words", (*said, *note))
    yield from _sweep_tables(report)
    yield from _accuracy_tables(report)
    yield Table("Method", tuple(_method(report)))
    if report.left_out:
        yield Table("Left out", report.left_out)
    yield from (_profile_table(profile) for profile in report.profiles)


def _network_tables(report: Report) -> Iterator[Table]:
    legend: tuple[str, ...] = (
        (NETWORK_LEGEND, PLAN_LEGEND) if any(row.kernels for row in report.rows) else (NETWORK_LEGEND,)
    )
    for rows in report.groups():
        timed = tuple(_network_cells(row, rows, report) for row in rows if row.network)
        if timed:
            yield _known(Table(f"{_group(rows)}: encoder and decoders", legend, NETWORK_HEADER, timed, 3), ("kernels",))
            legend = ()  # once will do


def _known(table: Table, columns: Sequence[str]) -> Table:
    """Return a table without those of the `columns` that no row has."""
    kept = [
        index
        for index, name in enumerate(table.header)
        if name not in columns or any(row[index] != NOTHING for row in table.rows)
    ]
    header, *rows = (tuple(cells[index] for index in kept) for cells in (table.header, *table.rows))
    return replace(table, header=header, rows=tuple(rows))


def _group(rows: Sequence[Row]) -> str:
    return f"{rows[0].encoder} {_size(rows[0].input_size)}"


def _network_cells(row: Row, rows: Sequence[Row], report: Report) -> tuple[str, ...]:
    roof = roof_of(row, report.limits)
    timing = row.network
    assert timing is not None
    return (
        row.name,
        row.engine,
        row.precision,
        f"{timing.p50:.2f}",
        _noise(timing),
        f"{timing.fps:.1f}",
        _figure(row.paper.fps if row.paper else None),
        _figure(full_to_encoder(row, rows), ".2f"),
        _figure(paper_full_to_encoder(row, rows) if row.kind == "cflow" else None, ".2f"),
        _figure(row.work.flops / 1e9 if row.work else None, ".2f"),
        _figure(roof.gflops if roof else None, ".0f"),
        _figure(roof.floor_ms if roof else None, ".2f"),
        _percent(roof.reached if roof else None),
        roof.bound if roof else NOTHING,
        _figure(row.kernels.get("network"), "d"),
        f"{row.size_mb:.1f}",
        _figure(row.paper.size_mb if row.paper else None),
    )


def _verdict_tables(report: Report) -> Iterator[Table]:
    legend: tuple[str, ...] = (VERDICT_LEGEND,)
    for rows in report.groups():
        timed = tuple(_verdict_cells(row, anchor_row(rows)) for row in rows if row.verdict)
        if timed:
            yield _known(Table(f"{_group(rows)}: frame to verdict", legend, VERDICT_HEADER, timed, 3), PLAN_COLUMNS)
            legend = ()


def _verdict_cells(row: Row, anchor: Row) -> tuple[str, ...]:
    timing = row.verdict
    assert timing is not None
    percentiles = timing.percentiles
    return (
        row.name,
        row.engine,
        row.precision,
        *(f"{percentiles[name]:.2f}" for name in ("p50", "p95", "p99")),
        f"{len(timing.samples_ms)}",
        _noise(timing),
        f"{timing.fps:.1f}",
        _figure(times_anchor(row, anchor), ".2f"),
        _figure(row.stages_ms.get("execute"), ".2f"),
        *(_figure(row.stages_ms.get(stage), ".3f") for stage in ("copy_in", "copy_out")),
        _figure(row.kernels.get("verdict"), "d"),
        _figure(row.first_verdict_s, ".2f"),
        _figure(row.memory_mb, ".0f"),
        _figure(row.device_memory_mb, ".0f"),
        _figure(row.work.flops / 1e9 if row.work else None, ".2f"),
        f"{row.size_mb:.1f}",
    )


def _sweep_tables(report: Report) -> Iterator[Table]:
    own = report.method.threads
    batches = [point for point in report.sweeps if point.threads == own]
    if batches:
        base = {_swept(point): point.timing.fps for point in batches if point.timing.batch == 1}
        rows = tuple(_batch_cells(point, base, report.limits) for point in batches)
        yield _known(Table("Batch", (), BATCH_HEADER, rows, 4), ("floor ms", "p50 / floor"))
    threads = [point for point in report.sweeps if point.threads != own]
    if threads:
        base = {_swept(point): point.timing.fps for point in threads if point.threads == 1}
        rows = tuple(
            (*_swept_cells(point), f"{point.threads}", *_speed_cells(point.timing, base.get(_swept(point))))
            for point in threads
        )
        yield Table("Threads", (), THREAD_HEADER, rows, 3)


def _swept(point: SweepPoint) -> tuple[str, tuple[int, int], str]:
    return point.name, point.input_size, point.precision


def _swept_cells(point: SweepPoint) -> tuple[str, str, str]:
    return point.name, _size(point.input_size), point.engine


def _batch_cells(
    point: SweepPoint, base: Mapping[tuple[str, tuple[int, int], str], float], limits: Limits | None
) -> tuple[str, ...]:
    roof, first = roof_of_point(point, limits), base.get(_swept(point))
    return (
        *_swept_cells(point),
        point.precision,
        f"{point.timing.batch}",
        *_speed_cells(point.timing, first),
        _figure(roof.floor_ms if roof else None, ".2f"),
        _figure(1 / roof.reached if roof else None, ".2f"),
    )


def _speed_cells(timing: Timing, first_fps: float | None) -> tuple[str, ...]:
    return (
        f"{timing.p50:.2f}",
        _noise(timing),
        f"{timing.fps:.1f}",
        _figure(timing.fps / first_fps if first_fps else None, ".2f"),
    )


def _accuracy_tables(report: Report) -> Iterator[Table]:
    rows = [
        (
            accuracy.file,
            row.precision,
            row.engine,
            f"{accuracy.images}",
            _hundredths(accuracy.image_auroc),
            _hundredths(accuracy.pixel_auroc),
            f"{row.verdict.p50:.2f}",
            f"{row.size_mb:.1f}",
        )
        for accuracy in report.accuracy
        for row in report.rows
        if row.verdict and row.model_sha256 and row.model_sha256 == accuracy.model_sha256
    ]
    if rows:
        note = "AUROC in percent, of the same files' answers in ONNX Runtime (export.verify)."
        yield Table("Accuracy and latency", (note,), ACCURACY_HEADER, tuple(rows), 3)


def _profile_table(profile: Profile) -> Table:
    total = sum(group.ms for group in profile.groups)
    rows = tuple(
        (group.name, f"{group.layers}", f"{group.ms:.3f}", f"{100 * group.ms / total:.1f}") for group in profile.groups
    )
    title = f"Layers of {profile.name} {_size(profile.input_size)} in {profile.engine}, {profile.precision}"
    return Table(
        title, ("Profiling costs time of its own, so only the shares count.",), ("part", "layers", "ms", "%"), rows
    )


def _method(report: Report) -> Iterator[str]:
    method, machine, conditions = report.method, report.machine, report.conditions
    yield f"command: {method.command}"
    clocks = ", ".join(part for part in (machine.clocks, machine.power_mode, machine.driver) if part)
    cores = f"{machine.cores} core{'s' if machine.cores > 1 else ''}"
    yield f"machine: {machine.device}, {cores}{', ' + clocks if clocks else ''}, {machine.operating_system}"
    yield f"versions: {', '.join(f'{name} {version}' for name, version in machine.versions.items())}"
    yield (
        f"each model in a process of its own; in each round every model has a go: a run that does not count, then one "
        f"to five that do; about {method.seconds_per_group:g} s for each encoder and size, medians over all runs; "
        f"batch 1 unless said; threads: {_threads(method.threads, report)}"
    )
    yield "± is the standard deviation of the medians of five consecutive parts of the measurement"
    yield f"frames: random pixels (seed {method.frame_seed}) of the input size; weights: {method.weights}"
    if report.limits:
        rates = ", ".join(f"{kind} {rate:.0f}" for kind, rate in report.limits.gflops.items())
        launch = report.limits.launch_us
        launches = f", a launch in {launch:.2f} µs" if launch is not None else ""
        memory = f"{report.limits.read_gb_s:.1f} GB/s"
        yield f"this machine can do: {rates} GFLOP/s, {memory}{launches} ({report.limits.how})"
    beside = (
        ("other processes", conditions.others_share),
        ("other guests of the host", conditions.stolen_share),
    )
    shares = [f"{_percent(share)} of the cores' time went to {name}" for name, share in beside if share is not None]
    throttled = {True: "clocks were lowered", False: "no clock was lowered", None: "lowered clocks are not told here"}
    yield "; ".join([*shares, throttled[conditions.throttled], _drift(conditions.slowdown)])
    yield f"measured: {method.measured_at}, {method.minutes:.0f} minutes"


def _drift(slowdown: float | None) -> str:
    return "" if slowdown is None else f"the last third of the rounds took {slowdown:.3f} of the first third's time"


def _threads(threads: int | None, report: Report) -> str:
    return f"{report.machine.cores}" if threads is None else f"{threads}"


def _size(input_size: tuple[int, int]) -> str:
    return f"{input_size[0]}x{input_size[1]}"


def _figure(value: float | None, form: str = "g") -> str:
    return NOTHING if value is None else f"{value:{form}}"


def _noise(timing: Timing) -> str:
    return NOTHING if timing.noise is None else f"{100 * timing.noise:.1f}"


def _percent(share: float | None) -> str:
    return NOTHING if share is None else f"{100 * share:.0f} %"


def _hundredths(share: float | None) -> str:
    return NOTHING if share is None else f"{100 * share:.2f}"


def _pipes(table: Table) -> str:
    rule = ["---" if index < table.left else "---:" for index in range(len(table.header))]
    cells = [[cell.replace("|", "\\|") for cell in row] for row in (table.header, rule, *table.rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def _without_gaps_in_lists(markdown: str) -> str:
    return markdown.replace("\n\n- ", "\n- ")
