"""Long tasks on a cluster, each by itself: one whose worker is lost is begun again, and one that is lost for good is
told, and no end of the others.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from runtime.cluster.arguments import ClusterSpec
from runtime.cluster.dask_cluster import dask_cluster, in_turn
from runtime.cluster.ray_cluster import ray_cluster

RETRIES = 3  # of a task whose worker was lost

Task = TypeVar("Task")
Done = TypeVar("Done")


@dataclass(frozen=True)
class Lost:
    """A task that came to nothing, and `why`."""

    why: str


def run_tasks(
    spec: ClusterSpec, work: Callable[[Task], Done], tasks: Sequence[Task], cpus: int = 1
) -> Iterator[tuple[Task, Done | Lost]]:
    """Yield each task with what `work` makes of it, as they come; `work` is a function that other processes can import.

    Each takes `cpus` CPUs, and on Ray a GPU where the cluster has any. Raises `UserError` where there is no cluster.
    """
    return (_on_ray if spec.library == "ray" else _on_dask)(spec, work, tasks, cpus)


def _on_ray(
    spec: ClusterSpec, work: Callable[[Task], Done], tasks: Sequence[Task], cpus: int
) -> Iterator[tuple[Task, Done | Lost]]:
    with ray_cluster(spec, cpus, reader_cpus=0) as (ray, workers):
        gpus = 1 if ray.cluster_resources().get("GPU", 0) >= 1 else 0

        def cflow_task(task: Task) -> Done:  # a function, which Ray wants: no partial one
            return work(task)

        remote = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=RETRIES)(cflow_task)
        waiting = list(tasks)
        under_way: dict[Any, Task] = {}
        while waiting or under_way:
            while waiting and len(under_way) < workers:
                task = waiting.pop(0)
                under_way[remote.remote(task)] = task
            (ref,), _ = ray.wait(list(under_way), num_returns=1)
            yield under_way.pop(ref), _result(partial(ray.get, ref), (ray.exceptions.RayError,))


def _on_dask(
    spec: ClusterSpec, work: Callable[[Task], Done], tasks: Sequence[Task], cpus: int
) -> Iterator[tuple[Task, Done | Lost]]:
    with dask_cluster(spec, cpus) as (client, workers):
        from distributed import KilledWorker

        for task, future in in_turn(client, workers, work, tasks):
            yield task, _result(future.result, (KilledWorker,))


def _result(get: Callable[[], Any], losses: tuple[type[Exception], ...]) -> Any:
    try:
        return get()
    except losses as error:
        return Lost(str(error).splitlines()[0])
