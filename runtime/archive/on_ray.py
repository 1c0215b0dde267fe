"""Judging on a Ray cluster, by Ray Data: an actor a worker, each with its process that judges (`keeper`)."""

import pickle
from collections.abc import Iterator, Sequence
from typing import Any

from runtime.archive.items import Part
from runtime.archive.judging import Row
from runtime.archive.keeper import Keeper
from runtime.archive.setup import Setup
from runtime.cluster.arguments import ClusterSpec
from runtime.cluster.ray_cluster import ray_cluster
from runtime.common.errors import UserError


class Worker:
    """What each actor is; an actor whose process is killed is begun anew by Ray, and its part given out again."""

    def __init__(self, setup: bytes) -> None:
        self._keeper = Keeper(pickle.loads(setup))

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return the rows of one part, or why there are none: an error here would be tried again for ever."""
        try:
            said: object = self._keeper.judge(pickle.loads(row["part"]))
        except UserError as error:
            said = str(error)
        return {"number": row["number"], "said": pickle.dumps(said)}


def on_ray(setup: Setup, parts: Sequence[Part], spec: ClusterSpec) -> Iterator[tuple[Part, list[Row]]]:
    """Yield the rows of each part, as they come. Raises `UserError` where cluster or engine cannot be opened."""
    with ray_cluster(spec) as (ray, workers):
        gpus = 1 if setup.engine.suffix == ".plan" else 0
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        tasks = [{"number": number, "part": pickle.dumps(part)} for number, part in enumerate(parts)]
        judged = ray.data.from_items(tasks, override_num_blocks=len(tasks)).map(
            Worker,
            fn_constructor_args=(pickle.dumps(setup),),
            compute=ray.data.ActorPoolStrategy(size=min(workers, len(parts)), max_tasks_in_flight_per_actor=2),
            num_cpus=1,
            num_gpus=gpus,
        )
        # a block a part, each as soon as it is there: what came is written, and lost by nothing
        for block in judged.iter_batches(batch_size=None, prefetch_batches=0):
            for number, pickled in zip(block["number"], block["said"], strict=True):
                said = pickle.loads(pickled)
                if isinstance(said, str):
                    raise UserError(said)
                yield parts[int(number)], said
