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
from runtime.report.conditions import LoadWatch, conditions, slowdown
from runtime.report.groups import (
    BFLOAT16,
    GroupResult,
    GroupVariant,
    anchor_of,
    by_group,
    measure_group,
    measure_threads,
    variants_of,
)
from runtime.report.limits import measure_limits, merged
from runtime.report.machine import describe_machine
from runtime.report.models import ModelList
from runtime.report.options import MeasureOptions
from runtime.report.profilers import profile
from runtime.report.schema import Conditions, Limits, Method, Profile, Report, Row, SweepPoint
from runtime.report.worker import FRAME_SEED, Subject
from runtime.report.workers import Worker

Say = Callable[[str], None]
Groups = Sequence[Sequence[GroupVariant]]


class WorkerOpener:
    """Opens workers and knows which of them live: their time is not other processes'."""

    def __init__(self, torch_python: Path | None) -> None:
        self._torch_python = torch_python
        self._workers: list[Worker] = []

    def __call__(self, subject: Subject) -> Worker:
        """Open a worker. Raises `UserError` as `Worker` does."""
        worker = Worker(subject, torch_python=self._torch_python)
        self._workers = [other for other in self._workers if other.alive] + [worker]
        return worker

    def living(self) -> list[int]:
        """Return the ids of the processes that have not ended."""
        return [worker.pid for worker in self._workers if worker.alive]


@dataclass(frozen=True)
class Measurement:
    """What came of all groups and of the sweep over threads, what the machine can do, and who watched it meanwhile."""

    results: list[GroupResult]
    thread_sweep: list[SweepPoint]
    limits: Limits | None
    watch: LoadWatch

    @property
    def rows(self) -> tuple[Row, ...]:
        """The rows of all groups."""
        return tuple(row for result in self.results for row in result.rows)

    @property
    def sweeps(self) -> tuple[SweepPoint, ...]:
        """The points of all sweeps."""
        return (*(point for result in self.results for point in result.sweeps), *self.thread_sweep)

    @property
    def left_out(self) -> tuple[str, ...]:
        """What could not be measured, each with its reason."""
        return tuple(line for result in self.results for line in result.left_out)


def make_report(models: ModelList, options: MeasureOptions, say: Say) -> Report:
    """Measure `models`; `say` is told what goes on. Raises `UserError` if none of them runs here."""
    accuracy = tuple(figure for path in options.accuracy for figure in read_accuracy(path))  # before minutes of work
    started, measured_at = time.monotonic(), datetime.now(timezone.utc).isoformat(timespec="seconds")
    groups = by_group(variants_of(models.entries, options.precisions))
    measured = _measure(models, groups, options, say)
    left_out = (*models.left_out, *measured.left_out)
    if not measured.rows:
        raise UserError("a report needs at least one model that runs here", "none", "; ".join(left_out))
    profiles = tuple(_profiles(groups, options, say)) if options.extras.profile else ()
    minutes, base, seconds = round((time.monotonic() - started) / 60, 1), options.base, options.budget.seconds
    return Report(
        method=Method(options.command, measured_at, base.threads, seconds, FRAME_SEED, models.weights, minutes),
        machine=describe_machine(),
        conditions=_conditions(measured.watch, measured.rows),
        limits=measured.limits,
        rows=measured.rows,
        sweeps=measured.sweeps,
        profiles=profiles,
        accuracy=accuracy,
        left_out=left_out,
    )


def _measure(models: ModelList, groups: Groups, options: MeasureOptions, say: Say) -> Measurement:
    """Measure all groups and the threads; the machine's limits before and after: something else may run during one."""
    opener = WorkerOpener(options.torch_python)
    limits = _limits(models, options)
    with LoadWatch(opener.living) as watch:
        results = list(_measure_groups(groups, options, opener, say))
        thread_sweep = _thread_sweep(groups, options, opener, say)
    if limits and (again := _limits(models, options)):
        limits = merged(limits, again)
    return Measurement(results, thread_sweep, limits, watch)


def _limits(models: ModelList, options: MeasureOptions) -> Limits | None:
    threads = options.base.threads or available_cores()
    return measure_limits(models.limits, options.base, threads, BFLOAT16 in options.precisions)


def _conditions(watch: LoadWatch, rows: Sequence[Row]) -> Conditions:
    timings = [timing for row in rows for timing in (row.network, row.verdict) if timing is not None]
    unrest = median(timing.noise or 0.0 for timing in timings)
    return conditions(watch, slowdown([timing.rounds_ms for timing in timings]), unrest)


def _measure_groups(groups: Groups, options: MeasureOptions, opener: WorkerOpener, say: Say) -> Iterator[GroupResult]:
    swept, budget = _smallest(groups), options.budget
    for group in groups:
        (encoder, (height, width)), label = group[0].group, anchor_of(group).entry.label
        say(f"{encoder} {height}x{width}: {len(group)} rows, about {budget.seconds:g} s, beside {label}")
        batches = options.extras.batches if group in swept else ()
        yield measure_group(group, options.base, budget.seconds, budget.rounds, batches, opener)


def _smallest(groups: Groups) -> list[Sequence[GroupVariant]]:
    """Return each encoder's group of the smallest size, where batches and threads gain most."""
    smallest: dict[str, Sequence[GroupVariant]] = {}
    for group in sorted(groups, key=lambda group: group[0].group[1]):
        smallest.setdefault(group[0].group[0], group)
    return list(smallest.values())


def _thread_sweep(groups: Groups, options: MeasureOptions, opener: WorkerOpener, say: Say) -> list[SweepPoint]:
    cores = available_cores()
    if not options.extras.sweep_threads or cores == 1:
        return []
    say(f"threads: 1 to {cores}")
    counts = sorted({1, 2, *range(4, cores + 1, 4), cores} & set(range(1, cores + 1)))
    anchors = [anchor for group in _smallest(groups) if not (anchor := anchor_of(group)).entry.compiled]
    return measure_threads(anchors, options.base, counts, opener)


def _profiles(groups: Groups, options: MeasureOptions, say: Say) -> Iterator[Profile]:
    """Yield the layers of each anchor of the smallest size, of plans in every precision.

    Those of an `.onnx` in ONNX Runtime too, where that is not what runs it.
    """
    variants = [(anchor_of(group), variant) for group in _smallest(groups) for variant in group]
    for anchor, variant in variants:
        file, is_sibling = variant.entry.verdict, variant.entry.kind == anchor.entry.kind and variant.entry.compiled
        if file is None or file.runner != "engine" or not (variant is anchor or is_sibling):
            continue
        backends: list[Backend] = [options.base.backend]
        if file.path.suffix != ".plan" and choose_backend(options.base.backend, "float32") != "onnxruntime":
            backends.append("onnxruntime")
        for backend in backends:
            say(f"layers of {file.path.name}")
            try:
                yield profile(file.path, backend, options.base.threads)
            except UserError as error:  # it did not open before either: that was told
                say(f"no layers: {error}")
