"""Training on several GPUs: what the processes that torchrun starts share, and nothing where there is one."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from runtime.common.errors import UserError

Value = TypeVar("Value")
PATIENCE = timedelta(hours=2)  # while the first process evaluates a class; the library's own is 10 minutes


@dataclass(frozen=True)
class Processes:
    """This process's place among `count` that train one model together; `rank` 0 writes the files."""

    rank: int
    count: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes and reports."""
        return self.rank == 0

    def generator(self, seed: int, epoch: int, *stream: int) -> torch.Generator:
        """Return a generator on the device for a stream of random numbers of a pass, this process's own."""
        seeds = np.random.SeedSequence([seed, epoch, self.rank, *stream])
        return torch.Generator(self.device).manual_seed(int(seeds.generate_state(1)[0]))

    def average(self, tensor: Tensor) -> None:
        """Replace `tensor` by its mean over the processes, in place."""
        if self.count > 1:
            dist.all_reduce(tensor)
            tensor /= self.count

    def broadcast(self, tensor: Tensor) -> None:
        """Replace `tensor` by the first process's, in place."""
        if self.count > 1:
            dist.broadcast(tensor, 0)

    def agree(self, decide: Callable[[], Value]) -> Value:
        """Return what `decide` returns in the first process, which alone calls it while the others wait."""
        if self.count == 1:
            return decide()
        decided: list[Any] = [decide() if self.first else None]
        dist.broadcast_object_list(decided, 0, device=self.device)
        value: Value = decided[0]
        return value


def one_process() -> Processes:
    """Return the plain case: this process alone, on the GPU if there is one."""
    return Processes(0, 1, torch.device("cuda" if torch.cuda.is_available() else "cpu"))


@contextmanager
def processes() -> Iterator[Processes]:
    """Join the processes that torchrun started (by its environment variables), else be the only one.

    NCCL between GPUs, one per process; gloo on CPUs. Raises `UserError` if there are more processes than GPUs.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield one_process()
        return
    local = int(os.environ["LOCAL_RANK"])
    gpus = torch.cuda.device_count()
    if gpus and local >= gpus:
        raise UserError("torchrun needs a GPU per process", f"{gpus} GPUs", f"--nproc-per-node {gpus}")
    device = torch.device("cuda", local) if gpus else torch.device("cpu")
    dist.init_process_group("nccl" if gpus else "gloo", timeout=PATIENCE)
    try:
        yield Processes(dist.get_rank(), count, device)
    finally:
        dist.destroy_process_group()
