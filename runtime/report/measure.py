"""From models to a report: what the machine can do, every group in turn, the sweeps, the profiles, the conditions."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from statistics import median

from runtime.common.errors import UserError
from runtime.common.machine import available_cores
from runtime.engines.backends import Backend, choose_backend
from runtime.report.accuracy import read_accuracy
from runtime.report.conditions import Watch, conditions, slowdown
from runtime.report.groups import (
    BFLOAT16,
    GroupResult,
    GroupVariant,
    anchor_of,
    by_group,
    measure_group,
    measure_threads,
)
from runtime.report.groups import variants_of as variants_of_entries
from runtime.report.limits import measure_limits, merged
from runtime.report.machine import describe_machine
from runtime.report.models import ModelList
from runtime.report.profilers import profile
from runtime.report.rounds import MOST_ROUNDS
from runtime.report.schema import Limits, Method, Profile, Report, Row, SweepPoint, Timing
from runtime.report.worker import FRAME_SEED, Subject
from runtime.report.workers import Worker

Say = Callable[[str], None]


@dataclass(frozen=True)
class MeasureOptions:
    """How to measure: about `seconds` for each encoder and size, at most `rounds` rounds.

    `threads` None: all cores; `backend` and `precisions` say how an `.onnx` is run. `batches` and `threads_swept` are
    those of the sweeps, `accuracy` files of `export.verify --json`, `torch_python` the interpreter that has torch
    where this one has not.
    """

    seconds: float = 60.0
    rounds: int = MOST_ROUNDS
    threads: int | None = None
    backend: Backend = "auto"
    precisions: tuple[str, ...] = ("fp32",)
    batches: tuple[int, ...] = ()
    sweep_threads: bool = False
    profile: bool = False
    accuracy: tuple[Path, ...] = ()
    command: str = "runtime.report"
    torch_python: Path | None = None

    def __post_init__(self) -> None:
        """Raise `UserError` for numbers that measure nothing."""
        if not self.seconds > 0:
            raise UserError("seconds must be above 0", str(self.seconds))
        for name, value in (("runs", self.rounds), ("threads", self.threads), ("batch", min(self.batches, default=1))):
            if value is not None and value < 1:
                raise UserError(f"{name} must be 1 or more", str(value))

    @property
    def subject(self) -> Subject:
        """What all subjects have in common."""
        return Subject("", {}, (0, 0), self.threads, self.backend)


def make_report(models: ModelList, options: MeasureOptions, say: Say) -> Report:
    """Measure `models`; `say` is told what goes on. Raises `UserError` if none of them runs here."""
    accuracy = tuple(figure for path in options.accuracy for figure in read_accuracy(path))  # before minutes of work
    started = time.monotonic()
    measured_at = datetime.now(timezone.utc).isoformat(timespec="seconds")
    groups = by_group(variants_of_entries(models.entries, options.precisions))
    opened = _Opened(options.torch_python)
    limits = _limits(models, options)
    with Watch(opened.living) as watch:
        outcomes = list(_measure_groups(groups, options, opened, say))
        sweeps = _thread_sweep(groups, options, opened, say)
    if limits is not None:  # again: something else may have run during the first measurement
        again = _limits(models, options)
        limits = merged(limits, again) if again else limits
    rows = tuple(row for outcome in outcomes for row in outcome.rows)
    left_out = (*models.left_out, *(line for outcome in outcomes for line in outcome.left_out))
    timings = _timings(rows)
    if not timings:
        raise UserError("a report needs at least one model that runs here", "none", "; ".join(left_out))
    profiles = tuple(_profiles(groups, options, say)) if options.profile else ()
    minutes = round((time.monotonic() - started) / 60, 1)
    threads = options.threads
    method = Method(options.command, measured_at, threads, options.seconds, FRAME_SEED, models.weights, minutes)
    batch_sweeps = [point for outcome in outcomes for point in outcome.sweeps]
    return Report(
        method,
        describe_machine(),
        conditions(watch, slowdown([timing.rounds_ms for timing in timings]), median(t.noise or 0.0 for t in timings)),
        limits,
        rows,
        (*batch_sweeps, *sweeps),
        profiles,
        accuracy,
        left_out,
    )


class _Opened:
    """Opens workers and knows which of them live: their time is not other processes'."""

    def __init__(self, torch_python: Path | None) -> None:
        self._torch_python = torch_python
        self._workers: list[Worker] = []

    def __call__(self, subject: Subject) -> Worker:
        worker = Worker(subject, torch_python=self._torch_python)
        self._workers = [other for other in self._workers if other.alive] + [worker]
        return worker

    def living(self) -> list[int]:
        return [worker.pid for worker in self._workers if worker.alive]


def _limits(models: ModelList, options: MeasureOptions) -> Limits | None:
    threads = options.threads or available_cores()
    return measure_limits(models.limits, options.subject, threads, BFLOAT16 in options.precisions)


def _measure_groups(
    groups: Sequence[Sequence[GroupVariant]], options: MeasureOptions, opened: "_Opened", say: Say
) -> Iterator[GroupResult]:
    swept = _smallest(groups)
    for group in groups:
        (encoder, (height, width)), anchor = group[0].group, anchor_of(group)
        say(f"{encoder} {height}x{width}: {len(group)} rows, about {options.seconds:g} s, beside {anchor.entry.label}")
        batches = options.batches if group in swept else ()
        yield measure_group(group, options.subject, options.seconds, options.rounds, batches, opened)


def _smallest(groups: Sequence[Sequence[GroupVariant]]) -> list[Sequence[GroupVariant]]:
    """Return each encoder's group of the smallest size, where batches and threads gain most."""
    smallest: dict[str, Sequence[GroupVariant]] = {}
    for group in sorted(groups, key=lambda group: group[0].group[1]):
        smallest.setdefault(group[0].group[0], group)
    return list(smallest.values())


def _thread_sweep(
    groups: Sequence[Sequence[GroupVariant]], options: MeasureOptions, opened: "_Opened", say: Say
) -> list[SweepPoint]:
    cores = available_cores()
    if not options.sweep_threads or cores == 1:
        return []
    say(f"threads: 1 to {cores}")
    counts = sorted({1, 2, *range(4, cores + 1, 4), cores} & set(range(1, cores + 1)))
    anchors = [anchor for group in _smallest(groups) if not (anchor := anchor_of(group)).entry.compiled]
    return measure_threads(anchors, options.subject, counts, opened)


def _profiles(groups: Sequence[Sequence[GroupVariant]], options: MeasureOptions, say: Say) -> Iterator[Profile]:
    """Yield the layers of each anchor of the smallest size, of plans in every precision.

    Those of an `.onnx` in ONNX Runtime too, where that is not what runs it.
    """
    for variant in _profiled(groups):
        file = variant.entry.verdict
        if file is None or file.runner != "engine":
            continue
        for backend in _backends(file.path, options.backend):
            say(f"layers of {file.path.name}")
            try:
                yield profile(file.path, backend, "float32", options.threads)
            except UserError as error:  # it did not open before either: that was told
                say(f"no layers: {error}")


def _profiled(groups: Sequence[Sequence[GroupVariant]]) -> Iterator[GroupVariant]:
    for group in _smallest(groups):
        anchor = anchor_of(group)
        yield anchor
        yield from (v for v in group if v is not anchor and v.entry.kind == anchor.entry.kind and v.entry.compiled)


def _backends(path: Path, backend: Backend) -> list[Backend]:
    if path.suffix == ".plan" or choose_backend(backend, "float32") == "onnxruntime":
        return [backend]
    return [backend, "onnxruntime"]


def _timings(rows: Sequence[Row]) -> list[Timing]:
    return [timing for row in rows for timing in (row.network, row.verdict) if timing is not None]
