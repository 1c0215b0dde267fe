"""Graphs and modules as functions of a batch, run as the runtime's own sessions run them."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from runtime.backends import CpuPrecision
from runtime.onnxruntime_session import session_options
from runtime.openvino_session import compile_options, openvino_core

Array = NDArray[Any]
Run = Callable[[Array], list[Array]]  # a batch in, the graph's outputs out


def with_onnxruntime(model: onnx.ModelProto, threads: int) -> Run:
    """Return a function that runs `model`, a graph of one input, in ONNX Runtime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(
        model.SerializeToString(), session_options(threads), providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name
    return lambda batch: list(session.run(None, {name: batch}))


def with_openvino(model: onnx.ModelProto, threads: int, precision: CpuPrecision, shape: Sequence[int]) -> Run:
    """Return a function that runs `model`, a graph of one input, in OpenVINO for batches of just `shape`."""
    core = openvino_core()
    graph = core.read_model(model.SerializeToString())
    graph.reshape(list(shape))
    request = core.compile_model(graph, "CPU", compile_options(threads, precision)).create_infer_request()
    return lambda batch: list(request.infer([batch]).values())


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
