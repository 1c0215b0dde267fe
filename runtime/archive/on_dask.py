"""Judging on a Dask cluster: each of its threads has a process that judges (`keeper`), kept from part to part."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial

from runtime.archive.items import Part
from runtime.archive.judging import Row
from runtime.archive.keeper import Keeper
from runtime.archive.setup import Setup
from runtime.cluster.arguments import ClusterSpec
from runtime.cluster.dask_cluster import dask_cluster, in_turn
from runtime.common.errors import UserError

_lock = threading.Lock()
_free: dict[Setup, list[Keeper]] = {}  # of this worker's process


def judge_here(setup: Setup, part: Part) -> list[Row] | str:
    """Return the rows of a part, judged by this worker; or why there are none, where to try again is of no use."""
    with _lock:
        waiting = _free.setdefault(setup, [])
        keeper = waiting.pop() if waiting else Keeper(setup)
    try:
        rows = keeper.judge(part)
    except UserError as error:
        keeper.close()
        return str(error)
    with _lock:
        waiting.append(keeper)
    return rows


def end_here() -> None:
    """End this worker's processes: of a cluster that goes on without us."""
    with _lock:
        keepers = [keeper for waiting in _free.values() for keeper in waiting]
        _free.clear()
    for keeper in keepers:
        keeper.close()


def on_dask(setup: Setup, parts: Sequence[Part], spec: ClusterSpec) -> Iterator[tuple[Part, list[Row]]]:
    """Yield the rows of each part, as they come. Raises `UserError` where cluster or engine cannot be opened.

    A part whose worker is killed is given to another one, as often as the cluster's `allowed-failures` says.
    """
    from distributed import KilledWorker

    with dask_cluster(spec) as (client, workers):
        try:
            for part, future in in_turn(client, workers, partial(judge_here, setup), parts):
                try:
                    said = future.result()
                except KilledWorker as error:
                    cure = "look at the workers' memory; what was judged is kept"
                    raise UserError("a worker must live to judge its images", str(error), cure) from None
                if isinstance(said, str):
                    raise UserError(said)
                yield part, said
        finally:
            if not spec.local:
                with suppress(Exception):  # what it does not reach ends by itself (`child.IDLE_S`)
                    client.run(end_here)
