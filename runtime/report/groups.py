"""Rows measured in turn: one encoder at one input size with all that it is to be compared with.

Not all of a group is open at once, for memory's sake: first the exact forms, then each other precision, then the
baselines. The *anchor*, the whole way of CFLOW-AD in FP32, runs in every round of all of them, so that each row has
rounds in common with what it is compared with.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

from runtime.common.errors import UserError
from runtime.report import paper_table
from runtime.report.models import BASELINE_KINDS, FORM_KINDS, ModelEntry
from runtime.report.rounds import Lane, measure_in_turn
from runtime.report.schema import Group, Row, SweepPoint
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
PAPER_KINDS |= dict.fromkeys(("engine", "eager"), "CFLOW-AD")

OpenWorker = Callable[[Subject], Worker]


@dataclass(frozen=True)
class GroupVariant:
    """An entry in one way to run it: its own precision, or an FP32 file's products in bfloat16."""

    entry: ModelEntry
    precision: str

    @property
    def group(self) -> Group:
        """Encoder and input size."""
        return self.entry.encoder, self.entry.input_size

    def subjects(self, base: Subject) -> list[Subject]:
        """Return what must be opened."""
        return subjects_of(self.entry, replace(base, precision="bfloat16" if self.precision == BFLOAT16 else "float32"))


@dataclass
class GroupResult:
    """What came of a group: its rows, its batch sweep, and what could not be measured, each with its reason."""

    rows: list[Row] = field(default_factory=list)
    sweeps: list[SweepPoint] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def leave_out(self, variant: GroupVariant, why: str) -> None:
        """Note what could not be measured."""
        height, width = variant.entry.input_size
        self.left_out.append(f"{variant.entry.label} {height}x{width} {variant.precision}: {why}")


@dataclass
class OpenVariant:
    """A variant with its workers open, and a lane for each thing that they time ("network", "verdict")."""

    variant: GroupVariant
    workers: dict[str, Worker] = field(default_factory=dict)
    lanes: dict[str, Lane] = field(default_factory=dict)

    @property
    def failed(self) -> str:
        """Why one of its lanes runs no more, "" while all do."""
        return next((lane.failed for lane in self.lanes.values() if lane.failed), "")

    @property
    def rounds(self) -> int:
        """How many rounds it was in, those included in which it rested."""
        return max(len(lane.rounds_ms) for lane in self.lanes.values())

    def rest(self, rounds: int) -> None:
        """Sit rounds out until there are as many as `rounds`."""
        for lane in self.lanes.values():
            lane.rounds_ms += [()] * (rounds - len(lane.rounds_ms))

    @property
    def kernels(self) -> dict[str, int]:
        """The kernels that an execution launches, by what is timed; of plans only."""
        return {path: worker.kernels for path, worker in self.workers.items() if worker.kernels is not None}


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
    groups: dict[Group, list[GroupVariant]] = {}
    for variant in variants:
        groups.setdefault(variant.group, []).append(variant)
    return list(groups.values())


def anchor_of(group: Sequence[GroupVariant]) -> GroupVariant:
    """Return the variant that others are compared with: CFLOW-AD in FP32, else the first."""
    return next((v for v in group if v.entry.kind == ANCHOR and v.precision == "fp32"), group[0])


def sets_of(group: Sequence[GroupVariant]) -> list[list[GroupVariant]]:
    """Return what of a group is open at the same time, the anchor left out."""
    anchor = anchor_of(group)
    sets: dict[str, list[GroupVariant]] = {}
    for variant in group:
        if variant is not anchor:
            name = "baselines" if variant.entry.kind in BASELINE_KINDS else variant.precision
            sets.setdefault(name, []).append(variant)
    return [*sets.values()] or [[]]


@dataclass(frozen=True)
class VariantOpener:
    """Opens variants as `base` says, and notes in `result` what does not open here."""

    base: Subject
    open_worker: OpenWorker
    result: GroupResult

    def open(self, variant: GroupVariant, stack: ExitStack) -> OpenVariant | None:
        """Open what a variant needs, until `stack` ends; None where it does not open here."""
        opened = OpenVariant(variant)
        try:
            for subject in variant.subjects(self.base):
                worker = stack.enter_context(self.open_worker(subject))
                for path in subject.paths:
                    opened.workers[path], opened.lanes[path] = worker, Lane(worker, path)
        except UserError as error:
            self.result.leave_out(variant, str(error))
            return None
        return opened


def measure_group(
    group: Sequence[GroupVariant],
    base: Subject,
    seconds: float,
    most: int,
    batches: Sequence[int] = (),
    open_worker: OpenWorker = Worker,
) -> GroupResult:
    """Measure a group for about `seconds`, then at each of `batches` its anchor and what has a file for that.

    What does not open or run is left out with its reason; without its anchor a group has no figures at all.
    """
    opener = VariantOpener(base, open_worker, GroupResult())
    with ExitStack() as stack:
        anchor = opener.open(anchor_of(group), stack)
        measured = _measure_sets(anchor, sets_of(group), opener, seconds, most) if anchor else []
        for item in measured:
            if item.failed:
                opener.result.leave_out(item.variant, item.failed)
        if anchor is None or anchor.failed:
            return opener.result
        rows = [row_of(item, anchor.rounds) for item in measured if not item.failed]
        opener.result.rows = sorted(rows, key=lambda row: KINDS.index(row.kind))
        if anchor.variant.entry.swept is None:
            opener.result.sweeps += sweep_batches(anchor, base.threads, batches)
    _sweep_files([variant for variant in group if variant.entry.swept is not None], opener, batches)
    return opener.result


def _measure_sets(
    anchor: OpenVariant, sets: Sequence[Sequence[GroupVariant]], opener: VariantOpener, seconds: float, most: int
) -> list[OpenVariant]:
    """Measure one set after the other beside the anchor, until that fails; return it and what opened of them."""
    measured = [anchor]
    for variants in sets:
        with ExitStack() as stack:
            opened = [item for variant in variants if (item := opener.open(variant, stack)) is not None]
            for item in opened:
                item.rest(anchor.rounds)
            lanes = [lane for item in (anchor, *opened) for lane in item.lanes.values()]
            measure_in_turn(lanes, seconds / len(sets), most)
        measured += opened
        if anchor.failed:
            break
    return measured


def _sweep_files(variants: Sequence[GroupVariant], opener: VariantOpener, batches: Sequence[int]) -> None:
    """Add the points of the files that variants have for other batches."""
    for variant in variants if batches else ():
        entry = replace(variant.entry, network=None, verdict=variant.entry.swept, swept=None)
        with ExitStack() as stack:
            if opened := opener.open(replace(variant, entry=entry), stack):
                opener.result.sweeps += sweep_batches(opened, opener.base.threads, batches)


def row_of(opened: OpenVariant, rounds: int) -> Row:
    """Return the row of a variant, its rounds as many as the anchor's."""
    entry, precision = opened.variant.entry, opened.variant.precision
    opened.rest(rounds)
    timings = {path: lane.timing for path, lane in opened.lanes.items()}
    verdict, any_worker = opened.workers.get("verdict"), next(reversed(opened.workers.values()))
    work = replace(entry.work, operands="bfloat16") if entry.work and precision == BFLOAT16 else entry.work
    return Row(
        name=entry.label,
        kind=entry.kind,
        encoder=entry.encoder,
        input_size=entry.input_size,
        engine=any_worker.engine,
        precision=precision,
        device=any_worker.device,
        file=(entry.verdict or entry.files[0]).path.name,
        size_mb=entry.size_bytes / 1e6,
        work=work,
        network=timings.get("network"),
        verdict=timings.get("verdict"),
        stages_ms=opened.lanes["verdict"].stages_ms() if verdict else {},
        first_verdict_s=verdict.first_verdict_s if verdict else None,
        memory_mb=verdict.memory_mb if verdict else None,
        paper=_paper_row(entry),
        model_sha256=entry.model_sha256,
        kernels=opened.kernels,
        device_memory_mb=verdict.device_memory_mb if verdict else None,
    )


def _paper_row(entry: ModelEntry) -> paper_table.PaperRow | None:
    word = PAPER_KINDS.get(entry.kind)
    rows = paper_table.rows_for(entry.encoder, entry.input_size)
    return next((row for row in rows if word is not None and word in row.model), None)


def sweep_batches(opened: OpenVariant, threads: int | None, batches: Sequence[int]) -> list[SweepPoint]:
    """Return a variant's whole way at every batch that it takes, all batches in turn."""
    worker = opened.workers.get("verdict")
    lanes = [Lane(worker, "verdict", batch) for batch in batches if batch <= worker.max_batch] if worker else []
    measure_in_turn(lanes, SWEEP_S, SWEEP_ROUNDS)
    ran = [lane for lane in lanes if lane.timing.samples_ms]  # a large batch may not fit the memory
    work, kernels = opened.variant.entry.work, opened.kernels.get("verdict")
    return [replace(_point(opened.variant, lane, threads), work=work, kernels=kernels) for lane in ran]


def measure_threads(
    anchors: Sequence[GroupVariant], base: Subject, threads: Sequence[int], open_worker: OpenWorker = Worker
) -> list[SweepPoint]:
    """Measure each anchor's whole way with each number of threads, all numbers in turn."""
    points = []
    for anchor in anchors:
        with ExitStack() as stack:
            lanes: list[tuple[int, Lane]] = []
            for count in threads:
                for subject in anchor.subjects(replace(base, threads=count)):
                    if "verdict" in subject.paths:
                        worker = stack.enter_context(open_worker(subject))
                        lanes.append((count, Lane(worker, "verdict")))
            measure_in_turn([lane for _, lane in lanes], SWEEP_S, SWEEP_ROUNDS)
            points += [_point(anchor, lane, count) for count, lane in lanes if not lane.failed]
    return points


def _point(variant: GroupVariant, lane: Lane, threads: int | None) -> SweepPoint:
    entry, engine = variant.entry, lane.worker.engine
    return SweepPoint(entry.label, entry.encoder, entry.input_size, engine, variant.precision, threads, lane.timing)
