"""Graphs and modules as functions of a batch, run as the runtime's own sessions run them."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from runtime.engines.any_onnx import Array, Run, open_onnxruntime, open_openvino
from runtime.engines.session import CpuPrecision

__all__ = ["Array", "Run", "measure_in_turn", "with_onnxruntime", "with_openvino", "with_torch"]


def with_onnxruntime(model: onnx.ModelProto, threads: int) -> Run:
    """Return a function that runs `model`, a graph of one input, in ONNX Runtime."""
    return open_onnxruntime(model.SerializeToString(), threads)


def with_openvino(model: onnx.ModelProto, threads: int, precision: CpuPrecision, shape: Sequence[int]) -> Run:
    """Return a function that runs `model`, a graph of one input, in OpenVINO for batches of just `shape`."""
    return open_openvino(model.SerializeToString(), threads, precision, shape)


def with_torch(module: torch.nn.Module, threads: int) -> Run:
    """Return a function that runs `module` eagerly with `threads` threads, which is torch's setting for all it does."""

    def run(batch: Array) -> list[Array]:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            with torch.inference_mode():
                return [output.numpy() for output in module(torch.from_numpy(batch))]
        finally:
            torch.set_num_threads(before)

    return run


def measure_in_turn(
    runs: Sequence[Callable[[], Any]], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> NDArray[np.float64]:
    """Return the milliseconds (rounds, runs) of each run in each round, by `clock` (in seconds).

    All take turns, so that what slows the machine slows all of them. Before its timed run each has one that does
    not count: it waits for the threads of the one before to fall asleep and brings its own weights into the cache.
    """
    times = np.empty((rounds, len(runs)))
    for row in times:
        for index, run in enumerate(runs):
            run()
            started = clock()
            run()
            row[index] = 1e3 * (clock() - started)
    return times
