"""What a report holds, and its JSON: every figure of a table or picture can be computed again from it.

Times are milliseconds, sizes 10^6 bytes, a multiply-add counts as two operations.
"""

import json
import re
import types
import typing
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from runtime.common.errors import UserError
from runtime.common.summary import PERCENTILES
from runtime.report.paper_table import PaperRow
from runtime.report.statistics import noise

SCHEMA = "cflow-edge/report/2"
_LIST_OF_NUMBERS = re.compile(r"\[([-+.eE0-9,\s]+)\]")  # written in one line each
Group = tuple[str, tuple[int, int]]  # encoder and input size: what was measured in turn, and may be compared


@dataclass(frozen=True)
class Timing:
    """Runs of `batch` frames: the milliseconds of each, by round in the order of measuring.

    A slow subject does not run in every round: its tuple is empty there.
    """

    rounds_ms: tuple[tuple[float, ...], ...]
    batch: int = 1

    @cached_property
    def samples_ms(self) -> tuple[float, ...]:
        """All runs."""
        return tuple(ms for samples in self.rounds_ms for ms in samples)

    @cached_property
    def percentiles(self) -> dict[str, float]:
        """p50, p95 and p99 in milliseconds, interpolated linearly."""
        values = np.percentile(self.samples_ms, PERCENTILES)
        return {f"p{percent}": float(value) for percent, value in zip(PERCENTILES, values, strict=True)}

    @property
    def p50(self) -> float:
        """The median in milliseconds."""
        return self.percentiles["p50"]

    @property
    def fps(self) -> float:
        """Frames per second at the median."""
        return 1e3 * self.batch / self.p50

    @property
    def noise(self) -> float | None:
        """How far the median moved under way, as a share of it; None if not known (see `statistics.noise`)."""
        return noise(self.rounds_ms)


@dataclass(frozen=True)
class Work:
    """What one frame asks of a machine, counted from the model; what passes between layers may stay in a cache."""

    flops: float
    weight_bytes: float  # the parameters, each read once a run, whatever its batch
    frame_bytes: float  # in and out, for each frame
    operands: str = "float32"  # of most products: "float32", "bfloat16", "float16" or "int8"


@dataclass(frozen=True)
class Row:
    """One model in one engine: a line of the table."""

    name: str  # "CFLOW-AD-R18"
    kind: str  # a key of `models.LABELS`
    encoder: str
    input_size: tuple[int, int]  # (height, width) in pixels
    engine: str  # "OpenVINO", "ONNX Runtime", "PyTorch", "TensorRT"
    precision: str  # "fp32", "fp16", "bf16", "int8"
    device: str
    file: str
    size_mb: float
    work: Work | None = None
    network: Timing | None = None  # encoder and decoders alone, as the paper: no upsampling, no map copied back
    verdict: Timing | None = None  # from a frame in memory to its verdict; an encoder's plan ends with taps on the GPU
    stages_ms: dict[str, float] = field(default_factory=dict)  # medians of the verdict's stages
    first_verdict_s: float | None = None  # from before the inference library is imported
    memory_mb: float | None = None  # the most that the process had resident
    paper: PaperRow | None = None
    model_sha256: str = ""
    kernels: dict[str, int] = field(default_factory=dict)  # of a plan's execution, by "network" and "verdict"
    device_memory_mb: float | None = None  # that a plan took of a GPU's memory

    @property
    def group(self) -> Group:
        """Encoder and input size."""
        return self.encoder, self.input_size

    @property
    def key(self) -> tuple[str, str, str, str, str]:
        """What tells this row from the others, in this report and in another one's."""
        height, width = self.input_size
        return self.name, self.kind, f"{height}x{width}", self.engine, self.precision


@dataclass(frozen=True)
class SweepPoint:
    """The time from frames to verdicts of one row at another batch or number of threads (None: all cores)."""

    name: str
    encoder: str
    input_size: tuple[int, int]
    engine: str
    precision: str
    threads: int | None
    timing: Timing
    work: Work | None = None
    kernels: int | None = None


@dataclass(frozen=True)
class LayerGroup:
    """A part of a network and its time in the engine's own profiler."""

    name: str  # "encoder layer1"
    ms: float  # per run of one frame
    layers: int


@dataclass(frozen=True)
class Profile:
    """Per-layer times of one row, by part of the network; profiling itself costs time, so only shares count."""

    name: str
    input_size: tuple[int, int]
    engine: str
    precision: str
    groups: tuple[LayerGroup, ...]


@dataclass(frozen=True)
class Accuracy:
    """What a file's answers are worth, from `export.verify --json`; AUROC in [0, 1]."""

    file: str
    precision: str
    images: int
    data: str
    image_auroc: float | None
    pixel_auroc: float | None
    model_sha256: str = ""


@dataclass(frozen=True)
class Limits:
    """What this machine can do, measured by the report itself, in the same number of threads."""

    gflops: dict[str, float]  # the best that a large product reached, by type of operand
    read_gb_s: float  # 10^9 bytes read from memory, on a GPU read or written in its own
    how: str
    launch_us: float | None = None  # that a GPU takes for the launch of a kernel


@dataclass(frozen=True)
class Method:
    """How the figures were taken; `threads` None is all cores."""

    command: str
    measured_at: str
    threads: int | None
    seconds_per_group: float
    frame_seed: int
    weights: str  # of the models: "seeded random", or "as in the files"
    minutes: float = 0.0


@dataclass(frozen=True)
class Machine:
    """Where the figures were taken, as far as the system tells; nothing is guessed."""

    device: str
    cores: int
    operating_system: str
    driver: str
    clocks: str
    power_mode: str
    versions: dict[str, str]


@dataclass(frozen=True)
class Conditions:
    """What went on beside the measuring. Shares are of all cores' time; None: the system does not tell."""

    others_share: float | None  # other processes
    stolen_share: float | None  # a hypervisor's other guests
    throttled: bool | None
    slowdown: float | None  # last third of the rounds over the first, median over rows
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """Everything that was measured, in the order of the tables."""

    method: Method
    machine: Machine
    conditions: Conditions
    limits: Limits | None
    rows: tuple[Row, ...]
    sweeps: tuple[SweepPoint, ...] = ()
    profiles: tuple[Profile, ...] = ()
    accuracy: tuple[Accuracy, ...] = ()
    left_out: tuple[str, ...] = ()  # what could not be measured here, each with its reason
    schema: str = SCHEMA

    def groups(self) -> list[list[Row]]:
        """Return the rows by encoder and input size, in their order."""
        found: dict[Group, list[Row]] = {}
        for row in self.rows:
            found.setdefault(row.group, []).append(row)
        return list(found.values())


def to_json(report: Report) -> str:
    """Return the report as JSON of schema `SCHEMA`, the figures that are computed from the samples beside them."""
    text = json.dumps(_plain(report), indent=1)
    return _LIST_OF_NUMBERS.sub(lambda found: f"[{' '.join(found[1].split())}]", text) + "\n"


def _plain(value: Any) -> Any:
    """Return `value` as JSON has it; a `Timing` with what is computed from it, for readers without this code."""
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if not is_dataclass(value):
        return value
    plain = {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    return (
        {**plain, **value.percentiles, "fps": value.fps, "noise": value.noise} if isinstance(value, Timing) else plain
    )


def from_json(text: str, origin: str) -> Report:
    """Rebuild a report. Raises `UserError` naming `origin` unless `text` is one of schema `SCHEMA`."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise UserError(f"{origin} must be JSON", str(error), "make it with runtime.report --output") from None
    found = value.get("schema", "no schema") if isinstance(value, dict) else type(value).__name__
    if found != SCHEMA:
        raise UserError(f"{origin} must have schema {SCHEMA}", str(found), "measure again with this version")
    try:
        report: Report = parse(Report, value)
        return report
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{origin} must hold every field of {SCHEMA}", repr(error), "measure again") from None


def read_report(path: Path) -> Report:
    """Read a report.json. Raises `UserError` where it is missing or is none."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} must be a report.json", str(error), "make it with runtime.report --output") from None
    return from_json(text, str(path))


def parse(kind: Any, value: Any) -> Any:
    """Return `value`, as JSON has it, as the type `kind`: a dataclass, or the type of a field of one."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return value
    if origin in (types.UnionType, typing.Union):  # with None
        chosen = next(argument for argument in arguments if argument is not type(None))
        return None if value is None else parse(chosen, value)
    if is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        names = [f.name for f in fields(kind)]
        return kind(**{name: parse(hints[name], value[name]) for name in names if name in value})  # type: ignore[operator]
    if origin is tuple:
        kinds = arguments[:1] * len(value) if arguments[-1] is ... else arguments
        return tuple(parse(item_kind, item) for item_kind, item in zip(kinds, value, strict=True))
    if origin is dict:
        return {str(key): parse(arguments[1], item) for key, item in value.items()}
    return kind(value)
