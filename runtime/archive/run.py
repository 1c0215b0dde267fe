"""A shard from its listing to its file: what is judged already is kept, the rest is judged where it was asked for."""

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from runtime.archive.items import WHOLE, Part, Shard
from runtime.archive.judging import Row
from runtime.archive.keeper import Keeper
from runtime.archive.listing import list_archive
from runtime.archive.setup import Setup
from runtime.archive.shelf import Plan, Shelf
from runtime.archive.table import columns
from runtime.cluster.arguments import ClusterSpec
from runtime.common.machine import available_cores
from runtime.common.notices import say

TELL_S = 10.0  # between two lines on how far it is


@dataclass(frozen=True)
class Run:
    """What is to be done: a `shard` of the archive that `setup` names, into `out`, `part_size` images a part.

    `workers` None: one for each core, one for a plan. With `again` images that could not be read are tried again.
    """

    setup: Setup
    out: Path
    shard: Shard = WHOLE
    workers: int | None = None
    cluster: ClusterSpec | None = None
    part_size: int = 100
    again: bool = False


@dataclass(frozen=True)
class Outcome:
    """What a shard came to: the `file`, how many images have which verdict, how many could not be judged at all.

    `new` were judged in this run, which took `seconds`, at a `pace` of so many a second once all was open (0: too few).
    """

    file: Path
    verdicts: Counter[str]
    errors: int
    new: int
    seconds: float
    pace: float


def judge_shard(run: Run) -> Outcome:
    """Judge what is not judged yet of a shard, and put its file in place.

    Raises `UserError` where archive, engine or cluster cannot be opened, or where the folder was judged by another
    engine; what was judged before then is kept.
    """
    began_s = time.monotonic()
    columns()  # needs pyarrow: not to be found out when an hour was judged
    with Keeper(run.setup) as first:
        identity = first.identity()
        shelf = Shelf(run.out, run.shard, identity)
        with shelf.ours():
            items = list_archive(run.setup.archive, run.shard)
            plan = shelf.plan(items, run.part_size, run.again)
            told = _Told(run.shard, plan, run.workers or available_cores())
            if plan.parts:
                shelf.begin()
                for part, rows in _judged(replace(run, setup=replace(run.setup, expected=identity)), plan, first):
                    shelf.put(part, rows)
                    told.more(len(rows))
            whole = shelf.finish()
    verdicts: Counter[str] = Counter(whole["verdict"].to_pylist())
    errors = sum(map(bool, whole["error"].to_pylist()))
    return Outcome(shelf.file, verdicts, errors, told.new, time.monotonic() - began_s, told.pace)


def _judged(run: Run, plan: Plan, first: Keeper) -> Iterator[tuple[Part, list[Row]]]:
    if run.cluster is None:
        from runtime.archive.pool import on_pool

        cores = 1 if run.setup.engine.suffix == ".plan" else available_cores()
        yield from on_pool(run.setup, plan.parts, run.workers or cores, first)
        return
    first.close()  # it was to say what the engine is; on the cluster there are others
    if run.cluster.library == "ray":
        from runtime.archive.on_ray import on_ray

        yield from on_ray(run.setup, plan.parts, run.cluster)
    else:
        from runtime.archive.on_dask import on_dask

        yield from on_dask(run.setup, plan.parts, run.cluster)


class _Told:
    """Says how far it is, now and then."""

    def __init__(self, shard: Shard, plan: Plan, workers: int) -> None:
        self.new = 0
        self._workers = workers
        # parts that come before all are at work, and before what a cluster holds back at its start has come
        self._opening = max(workers, len(plan.parts) // 4)
        self._begun = (0.0, 0)  # when that was, and how many images had come
        self._last_s = self._told_s = time.monotonic()
        self._shard, self._plan = shard, plan
        kept = f", {plan.judged} of them judged before" if plan.judged else ""
        say(f"shard {shard}: {plan.images} images{kept}")

    @property
    def pace(self) -> float:
        """Images a second over the last three quarters: without what it took to open engines; 0: too few."""
        began_s, before = self._begun
        return (self.new - before) / (self._last_s - began_s) if self._opening <= -2 * self._workers else 0.0

    def more(self, count: int) -> None:
        """Count images of one part."""
        self.new += count
        self._last_s = time.monotonic()
        self._opening -= 1
        if self._opening == 0:
            self._begun = (self._last_s, self.new)
        if self._last_s - self._told_s < TELL_S or not self.pace:
            return
        self._told_s = self._last_s
        done = self._plan.judged + self.new
        left_s = (self._plan.images - done) / self.pace
        say(f"shard {self._shard}: {done} of {self._plan.images}, {self.pace:.1f} a second, {left_s:.0f} s left")
