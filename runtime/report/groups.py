"""Rows measured in turn: one encoder at one input size with all that it is to be compared with.

Not all of a group is open at once, for memory's sake: first the exact forms, then each other precision, then the
baselines. The *anchor*, the whole way of CFLOW-AD in FP32, runs in every round of all of them, so that each row has
rounds in common with what it is compared with.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

from runtime.common.errors import UserError
from runtime.report import paper_table
from runtime.report.models import BASELINE_KINDS, FORM_KINDS, ModelEntry
from runtime.report.rounds import Lane, measure_in_turn
from runtime.report.schema import Row, SweepPoint
from runtime.report.worker import Subject
from runtime.report.workers import Worker, subjects_of

ANCHOR = "cflow"
ANOMALIB_KINDS = ("anomalib-cflow", "anomalib-efficientad")
KINDS = ("encoder", "cflow", "engine", *FORM_KINDS, "unfused", "eager", *BASELINE_KINDS, *ANOMALIB_KINDS)
TYPED_KINDS = ("encoder", "cflow", *FORM_KINDS)  # in each precision that is asked for
SWEEP_S = 20.0
SWEEP_ROUNDS = 15
BFLOAT16 = "bf16"  # a way to run an FP32 file, no file of its own
PAPER_KINDS = {"encoder": "encoder only", "cflow": "CFLOW-AD", "padim": "PaDiM", "spade": "SPADE"}

Say = Callable[[str], None]
Open = Callable[[Subject], Worker]


@dataclass(frozen=True)
class GroupVariant:
    """An entry in one way to run it: its own precision, or an FP32 file's products in bfloat16."""

    entry: ModelEntry
    precision: str

    @property
    def group(self) -> tuple[str, tuple[int, int]]:
        """Encoder and input size."""
        return self.entry.encoder, self.entry.input_size

    def subjects(self, base: Subject) -> list[Subject]:
        """Return what must be opened."""
        return subjects_of(self.entry, replace(base, precision="bfloat16" if self.precision == BFLOAT16 else "float32"))


@dataclass
class _Measured:
    """A variant's lanes by what they time, and what its workers said of themselves."""

    variant: GroupVariant
    lanes: dict[str, Lane] = field(default_factory=dict)
    first_verdict_s: float | None = None
    memory_mb: float | None = None
    device_memory_mb: float | None = None
    kernels: dict[str, int] = field(default_factory=dict)
    device: str = ""
    engine: str = ""

    @property
    def failed(self) -> str:
        """Why one of its lanes runs no more, "" while all do."""
        return next((lane.failed for lane in self.lanes.values() if lane.failed), "")


@dataclass
class GroupResult:
    """What came of a group: its rows, its batch sweep, and what could not be measured, each with its reason."""

    rows: list[Row] = field(default_factory=list)
    sweeps: list[SweepPoint] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def variants_of(entries: Sequence[ModelEntry], precisions: Sequence[str]) -> list[GroupVariant]:
    """Return every entry in its own precision where that is asked for, and FP32 files in bfloat16 where that is.

    What has only FP32 (torch, baselines, other projects' exports, files that a user named) is in any case there.
    """
    found = []
    for entry in entries:
        if entry.kind not in TYPED_KINDS or entry.precision in precisions:
            found.append(GroupVariant(entry, entry.precision))
        if BFLOAT16 in precisions and entry.precision == "fp32" and entry.kind in ("encoder", "cflow", "engine"):
            found.append(GroupVariant(entry, BFLOAT16))
    return found


def by_group(variants: Sequence[GroupVariant]) -> list[list[GroupVariant]]:
    """Return the variants by encoder and input size, in the order of their first ones."""
    groups: dict[tuple[str, tuple[int, int]], list[GroupVariant]] = {}
    for variant in variants:
        groups.setdefault(variant.group, []).append(variant)
    return list(groups.values())


def anchor_of(group: Sequence[GroupVariant]) -> GroupVariant:
    """Return the variant that others are compared with: CFLOW-AD in FP32, else the first."""
    exact = [v for v in group if v.entry.kind == ANCHOR and v.precision == "fp32"]
    return exact[0] if exact else group[0]


def sets_of(group: Sequence[GroupVariant]) -> list[list[GroupVariant]]:
    """Return what of a group is open at the same time, the anchor left out."""
    anchor = anchor_of(group)
    sets: dict[str, list[GroupVariant]] = {}
    for variant in group:
        if variant is not anchor:
            name = "baselines" if variant.entry.kind in BASELINE_KINDS else variant.precision
            sets.setdefault(name, []).append(variant)
    return [*sets.values()] or [[]]


def measure_group(
    group: Sequence[GroupVariant],
    base: Subject,
    seconds: float,
    most: int,
    batches: Sequence[int] = (),
    open_worker: Open = Worker,
    tick: Callable[[], None] = lambda: None,
) -> GroupResult:
    """Measure a group for about `seconds`, then at each of `batches` its anchor and what has a file for that.

    What does not open or run is left out with its reason; without its anchor a group has no figures at all.
    """
    outcome = GroupResult()
    with ExitStack() as stack:
        anchor = _open(anchor_of(group), base, stack, open_worker, outcome)
        if anchor is None:
            return outcome
        done, measured = 0, [anchor]
        sets = sets_of(group)
        for variants in sets:
            with ExitStack() as opened:
                found = [_open(variant, base, opened, open_worker, outcome) for variant in variants]
                some = [item for item in found if item is not None]
                for item in some:
                    for lane in item.lanes.values():
                        lane.rounds_ms = [()] * done
                lanes = [lane for item in [anchor, *some] for lane in item.lanes.values()]
                measure_in_turn(lanes, seconds / len(sets), most, tick)
                measured += some
            if anchor.failed:
                break
            done = max(len(lane.rounds_ms) for lane in anchor.lanes.values())
        outcome.left_out += [_left_out(item.variant, item.failed) for item in measured if item.failed]
        if anchor.failed:
            return outcome
        outcome.rows = [_row(item, done) for item in measured if not item.failed]
        outcome.rows.sort(key=lambda row: KINDS.index(row.kind))
        if batches and anchor.variant.entry.swept is None:
            outcome.sweeps = list(_sweep(anchor, base, batches, tick))
    for variant in group if batches else ():
        if variant.entry.swept is not None:
            outcome.sweeps += _sweep_file(variant, base, batches, open_worker, outcome, tick)
    return outcome


def _sweep_file(
    variant: GroupVariant,
    base: Subject,
    batches: Sequence[int],
    open_worker: Open,
    outcome: GroupResult,
    tick: Callable[[], None],
) -> list[SweepPoint]:
    """Return the points of a variant's file for batches."""
    entry = replace(variant.entry, network=None, verdict=variant.entry.swept, swept=None)
    with ExitStack() as stack:
        opened = _open(replace(variant, entry=entry), base, stack, open_worker, outcome)
        return list(_sweep(opened, base, batches, tick)) if opened is not None else []


def _open(
    variant: GroupVariant, base: Subject, stack: ExitStack, open_worker: Open, outcome: GroupResult
) -> "_Measured | None":
    measured = _Measured(variant)
    try:
        for subject in variant.subjects(base):
            worker = stack.enter_context(open_worker(subject))
            for path in subject.paths:
                measured.lanes[path] = Lane(worker, path)
            if worker.kernels is not None:
                measured.kernels |= dict.fromkeys(subject.paths, worker.kernels)
            if "verdict" in subject.paths:
                measured.first_verdict_s, measured.memory_mb = worker.first_verdict_s, worker.memory_mb
                measured.device_memory_mb = worker.device_memory_mb
            measured.device, measured.engine = worker.device, worker.engine
    except UserError as error:
        outcome.left_out.append(_left_out(variant, str(error)))
        return None
    return measured


def _left_out(variant: GroupVariant, why: str) -> str:
    height, width = variant.entry.input_size
    return f"{variant.entry.label} {height}x{width} {variant.precision}: {why}"


def _row(measured: _Measured, rounds: int) -> Row:
    """Return the row of a variant, its rounds as many as the anchor's."""
    entry = measured.variant.entry
    for lane in measured.lanes.values():
        lane.rounds_ms += [()] * (rounds - len(lane.rounds_ms))
    network, verdict = measured.lanes.get("network"), measured.lanes.get("verdict")
    work = entry.work
    if work is not None and measured.variant.precision == BFLOAT16:
        work = replace(work, operands="bfloat16")
    return Row(
        name=entry.label,
        kind=entry.kind,
        encoder=entry.encoder,
        input_size=entry.input_size,
        engine=measured.engine,
        precision=measured.variant.precision,
        device=measured.device,
        file=(entry.verdict or entry.files[0]).path.name,
        size_mb=entry.size_bytes / 1e6,
        work=work,
        network=network.timing if network else None,
        verdict=verdict.timing if verdict else None,
        stages_ms=verdict.stages_ms() if verdict else {},
        first_verdict_s=measured.first_verdict_s,
        memory_mb=measured.memory_mb,
        paper=_paper_row(entry),
        model_sha256=entry.model_sha256,
        kernels=measured.kernels,
        device_memory_mb=measured.device_memory_mb,
    )


def _paper_row(entry: ModelEntry) -> paper_table.PaperRow | None:
    word = PAPER_KINDS.get(ANCHOR if entry.kind in ("engine", "eager") else entry.kind)
    rows = paper_table.rows_for(entry.encoder, entry.input_size)
    return next((row for row in rows if word is not None and word in row.model), None)


def _sweep(anchor: _Measured, base: Subject, batches: Sequence[int], tick: Callable[[], None]) -> Iterator[SweepPoint]:
    """Yield the anchor's whole way at every batch that it takes, all batches in turn."""
    lane = anchor.lanes.get("verdict")
    if lane is None or not isinstance(lane.worker, Worker):
        return
    lanes = [Lane(lane.worker, "verdict", batch) for batch in batches if batch <= lane.worker.max_batch]
    if lanes:
        measure_in_turn(lanes, SWEEP_S, SWEEP_ROUNDS, tick)
    for swept in lanes:
        if swept.timing.samples_ms:  # a large batch may not fit the memory
            point = sweep_point(anchor.variant, anchor.engine, base.threads, swept)
            yield replace(point, work=anchor.variant.entry.work, kernels=anchor.kernels.get("verdict"))


def sweep_point(variant: GroupVariant, engine: str, threads: int | None, lane: Lane) -> SweepPoint:
    """Return what a lane of a sweep came to."""
    entry = variant.entry
    return SweepPoint(entry.label, entry.encoder, entry.input_size, engine, variant.precision, threads, lane.timing)


def measure_threads(
    anchors: Sequence[GroupVariant],
    base: Subject,
    threads: Sequence[int],
    open_worker: Open = Worker,
    tick: Callable[[], None] = lambda: None,
) -> list[SweepPoint]:
    """Measure each anchor's whole way with each number of threads, all numbers in turn."""
    points = []
    for anchor in anchors:
        with ExitStack() as stack:
            lanes = []
            for count in threads:
                for subject in anchor.subjects(replace(base, threads=count)):
                    if "verdict" in subject.paths:
                        worker = stack.enter_context(open_worker(subject))
                        lanes.append((count, worker.engine, Lane(worker, "verdict")))
            if lanes:
                measure_in_turn([lane for _, _, lane in lanes], SWEEP_S, SWEEP_ROUNDS, tick)
            points += [sweep_point(anchor, engine, count, lane) for count, engine, lane in lanes if not lane.failed]
    return points
