"""What the pictures call things, and the colours that encoders keep in all of them."""

from collections.abc import Iterable, Sequence

from runtime.report.charts.style import BLUE, GREEN, INK, ORANGE, PURPLE, SKY, VERMILION
from runtime.report.paper_table import PAPER_NAMES
from runtime.report.schema import Report, Row, Timing

Size = tuple[int, int]  # (height, width) in pixels
TIMES = "\N{MULTIPLICATION SIGN}"
KIND_NAMES = {
    "encoder": "encoder only",
    "cflow": "CFLOW-AD",
    "unfused": "CFLOW-AD, unfused",
    "eager": "CFLOW-AD, eager PyTorch",
    "padim": "PaDiM",
    "spade": "SPADE",
    "anomalib-cflow": "anomalib Cflow",
    "anomalib-efficientad": "anomalib EfficientAD",
    "engine": "engine",
}
_COLOURS = {"resnet18": BLUE, "wide_resnet50_2": VERMILION, "mobilenet_v3_large": GREEN}  # the paper's encoders
_MORE_COLOURS = (ORANGE, PURPLE, SKY, INK)


def ran(timing: Timing | None) -> Timing | None:
    """Return `timing` if it holds a run at all."""
    return timing if timing is not None and timing.samples_ms else None


def area(size: Size) -> tuple[int, Size]:
    """Return what input sizes are ordered by."""
    return size[0] * size[1], size


def size_text(size: Size) -> str:
    """Return height times width."""
    return f"{size[0]} {TIMES} {size[1]}"


def short_encoder(encoder: str) -> str:
    """Return the paper's short name, the encoder's own where the paper has none."""
    return PAPER_NAMES.get(encoder, encoder)


def short_engine(engine: str) -> str:
    """Return an engine's name without versions: its first word but for "ONNX Runtime"."""
    return "ONNX Runtime" if engine.startswith("ONNX Runtime") else engine.split(" ")[0]


def default_engine(report: Report) -> str:
    """Return the engine that needs no naming: that of the first CFLOW-AD row, or of the first row."""
    engines = [row.engine for row in report.rows if row.kind == "cflow"] or [row.engine for row in report.rows]
    return short_engine(engines[0]) if engines else ""


def variant(precision: str, engine: str, default: str, name: str = "") -> list[str]:
    """Return what tells a row from its FP32 sibling in the engine `default`, unless `name` says so already."""
    parts = [] if precision == "fp32" else [precision.upper()]
    engine = short_engine(engine)
    return parts if engine == default or engine in name else [*parts, engine]


def row_labels(report: Report, rows: Sequence[Row]) -> list[str]:
    """Return a name for each row, another one for another row of the same encoder and input size."""
    default = default_engine(report)
    labels = [", ".join((row.name, *variant(row.precision, row.engine, default, row.name))) for row in rows]
    places = [(label, row.group) for label, row in zip(labels, rows, strict=True)]
    twice = {label for label, group in places if places.count((label, group)) > 1}
    return [f"{label} ({row.file})" if label in twice else label for label, row in zip(labels, rows, strict=True)]


def short_label(name: str, encoder: str, size: Size, parts: Iterable[str]) -> str:
    """Return a label for a crowded place: "R18 256 INT8" for the paper's CFLOW-AD-R18, an engine file's own name."""
    short = short_encoder(encoder)
    side = str(size[0]) if size[0] == size[1] else f"{size[0]}{TIMES}{size[1]}"
    return " ".join((short if short in name and not name.endswith((".onnx", ".plan")) else name, side, *parts))


def encoder_colours(report: Report) -> dict[str, str]:
    """Return the colour of every encoder in the report, in the order in which they come."""
    encoders = [row.encoder for row in report.rows] + [point.encoder for point in report.sweeps]
    colours: dict[str, str] = {}
    for encoder in encoders:
        if encoder not in colours:
            others = len([known for known in colours if known not in _COLOURS])
            colours[encoder] = _COLOURS.get(encoder, _MORE_COLOURS[others % len(_MORE_COLOURS)])
    return colours


def notes(report: Report) -> list[str]:
    """Return the small print of every picture: whose figures these are, and what stood in the measuring's way."""
    threads = report.method.threads
    cores = f"all {report.machine.cores} cores" if threads is None else counted(threads, "thread")
    measured = f"Measured on {report.machine.device}, {cores}, {report.method.measured_at[:10]}."
    return [measured, *(f"Beware: {warning}" for warning in report.conditions.warnings)]


def counted(number: int, thing: str) -> str:
    """Return "1 thread" or "2 threads"."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
