"""Dask: a cluster of this machine alone, or one that runs already."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from typing import Any, TypeVar

from runtime.cluster.arguments import ClusterSpec
from runtime.cluster.reach import check_reachable
from runtime.common.errors import UserError
from runtime.common.machine import available_cores
from runtime.common.notices import say

INSTALL = "pip install 'cflow-edge[dask]'"
AHEAD = 3  # tasks that wait for each worker: enough that none is idle, few enough that the scheduler stays small
LOOK_S = 10.0  # between two looks for workers, while nothing comes
ALONE_S = 300.0  # without any worker, before it is given up

Task = TypeVar("Task")


@contextmanager
def dask_cluster(spec: ClusterSpec, cpus: int = 1) -> Iterator[tuple[Any, int]]:
    """Yield a client and how many workers (threads of processes) there are; both go at the end.

    A cluster of this machine alone has as many as `cpus` CPUs for each allow.

    Raises `UserError` without Dask, for a scheduler that does not answer, or one without any worker.
    """
    try:
        import dask
        from distributed import Client, LocalCluster
    except ModuleNotFoundError:
        raise UserError("--dask needs dask and distributed", "none", INSTALL) from None
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what goes wrong is told by us, in one line
    if spec.local:
        workers = spec.workers or max(1, available_cores() // cpus)
        plain = {
            "threads_per_worker": 1,
            "dashboard_address": None,
            "memory_limit": None,
            "silence_logs": logging.ERROR,
        }
        # one that was killed has begun anew by then, on a busy machine too; else the cluster would give it up for good
        patience = dask.config.set({"distributed.deploy.lost-worker-timeout": "1 hour"})
        with patience, LocalCluster(n_workers=workers, **plain) as cluster, Client(cluster) as client:
            yield client, workers
        return
    check_reachable(spec.address, "--dask")
    try:
        client = Client(spec.address, timeout="20s")
    except (OSError, ValueError) as error:
        found = str(error).splitlines()[0]
        raise UserError(f"the Dask scheduler {spec.address} must answer", found, "check the address") from None
    with client:
        has = sum(client.nthreads().values())
        if not has:
            raise UserError(f"the Dask cluster {spec.address} must have a worker", "none", "dask worker begins one")
        if spec.workers is not None and spec.workers > has:
            say(f"--workers {spec.workers} are more than the Dask cluster has: {has} it is")
        yield client, has if spec.workers is None else min(spec.workers, has)


def in_turn(
    client: Any, workers: int, work: Callable[[Task], Any], tasks: Iterable[Task]
) -> Iterator[tuple[Task, Any]]:
    """Yield each task with its future, which is done, as they come.

    Raises `UserError` where the cluster has no worker any more, and gets none: Dask would wait for ever.
    """
    waiting = iter(tasks)
    under_way: dict[Any, Task] = {}

    def begin(count: int) -> None:
        for task in islice(waiting, count):
            under_way[client.submit(work, task, pure=False)] = task

    begin(workers * AHEAD)
    while under_way:
        for future in _done(client, list(under_way)):
            yield under_way.pop(future), future
            begin(1)


def _done(client: Any, futures: Sequence[Any]) -> list[Any]:
    """Wait for the first of `futures` and return those that are done. Raises `UserError` where there is no worker."""
    from distributed import wait

    last_seen_s = time.monotonic()
    while True:
        with suppress(TimeoutError, asyncio.TimeoutError):
            return list(wait(futures, timeout=LOOK_S, return_when="FIRST_COMPLETED").done)
        if client.nthreads():
            last_seen_s = time.monotonic()
        elif time.monotonic() - last_seen_s > ALONE_S:
            found = f"none for {ALONE_S:.0f} s"
            raise UserError("the Dask cluster must have a worker", found, "begin some, then this again: it goes on")
