"""Dask: a cluster of this machine alone, or one that runs already."""

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar

from runtime.cluster.arguments import ClusterSpec
from runtime.cluster.reach import check_reachable
from runtime.common.errors import UserError
from runtime.common.machine import available_cores
from runtime.common.notices import say

INSTALL = "pip install 'cflow-edge[dask]'"
AHEAD = 3  # tasks that wait for each worker: enough that none is idle, few enough that the scheduler stays small

Task = TypeVar("Task")


@contextmanager
def dask_cluster(spec: ClusterSpec, cpus: int = 1) -> Iterator[tuple[Any, int]]:
    """Yield a client and how many workers (threads of processes) there are; both go at the end.

    A cluster of this machine alone has as many as `cpus` CPUs for each allow.

    Raises `UserError` without Dask, for a scheduler that does not answer, or one without any worker.
    """
    try:
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
        with LocalCluster(n_workers=workers, **plain) as cluster, Client(cluster) as client:
            yield client, workers
        return
    check_reachable(spec.address, "--dask")
    try:
        client = Client(spec.address, timeout="20s", set_as_default=False)
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
    client: Any, workers: int, work: Callable[[Task], Any], tasks: Iterable[Task], **how: Any
) -> Iterator[tuple[Task, Any]]:
    """Yield each task with its future, which is done, as they come; `how` are options of `Client.submit`."""
    from distributed import as_completed

    waiting = iter(tasks)
    of: dict[str, Task] = {}

    def more(count: int) -> Iterator[Any]:
        for task in islice(waiting, count):
            future = client.submit(work, task, pure=False, **how)
            of[future.key] = task
            yield future

    coming = as_completed(list(more(workers * AHEAD)), loop=client.loop)
    for future in coming:
        yield of.pop(future.key), future
        coming.update(more(1))
