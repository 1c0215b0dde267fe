"""A deserialised plan with all that it needs on the device: stream, buffers, events and the captured graph."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from runtime.common.errors import UserError
from runtime.common.notices import say
from runtime.engines.session import Frames, Maps, Scores
from runtime.engines.sidecar import INPUT_NAME, MAP_NAME, SCORE_NAME, Sidecar
from runtime.engines.trt import cuda
from runtime.engines.trt.log import library_log
from runtime.engines.trt.plan import PlanFile, create_runtime, find_weights, refit

STAGES = ("copy_in", "execute", "copy_out")
NUMPY_TYPES = {
    "UINT8": "uint8",
    "INT8": "int8",
    "INT32": "int32",
    "INT64": "int64",
    "HALF": "float16",
    "FLOAT": "float32",
}


class _Buffer:
    """One I/O tensor for the largest batch: pinned host memory and device memory of the same shape."""

    def __init__(self, driver: Any, shape: tuple[int, ...], dtype: "np.dtype[Any]") -> None:
        self.host = driver.pagelocked_empty(shape, dtype)
        try:
            self.device = driver.mem_alloc(self.host.nbytes)
        except BaseException:
            self.host.base.free()
            raise

    def free(self) -> None:
        self.device.free()
        self.host.base.free()


class LoadedEngine:
    """The engine of a plan, ready to run batches of `min_batch` to `max_batch` frames.

    `driver` is pycuda's driver module, `library` the TensorRT module. Every method needs the CUDA context that the
    constructor ran in to be current; `free` comes before that context goes. A constructor that fails frees what it
    has made, and raises `UserError` or pycuda's error.

    With `judges` False the plan may have any outputs, and is there for `execute` and `enqueue`, not for `run`;
    with `cuda_graph` False its kernels are launched one by one, which costs the host's time for each.
    """

    def __init__(self, driver: Any, library: Any, plan: PlanFile, judges: bool = True, cuda_graph: bool = True) -> None:
        self._driver = driver
        self._log = library_log(library)
        self._batch = 0  # of the shapes that are set and the graph that is captured
        self._captures = cuda_graph
        self._graph: cuda.CapturedGraph | None = None
        self._buffers: dict[str, _Buffer] = {}
        self._runtime: Any = None
        self._engine: Any = None
        self._execution: Any = None
        self._stream: Any = None
        self._events: list[Any] = []
        try:
            self._open(library, plan, judges)
            self._allocate()
        except BaseException:
            self.free()
            raise

    def _open(self, library: Any, plan: PlanFile, judges: bool) -> None:
        path, artefact = plan.path, plan.artefact
        weights = find_weights(path, artefact) if artefact.weights_sha256 else None
        self._log.clear()
        self._runtime = create_runtime(library, self._log, artefact)
        self._engine = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if self._engine is None:
            raise UserError(f"{path.name} must open", self._log.reason(), "rebuild it with export.build_engine")
        if weights is not None:
            refit(self._engine, library, self._log, weights)
        if judges:
            _check_contract(self._engine, path, plan.sidecar)
        self.min_batch, self.max_batch = _batch_range(self._engine)
        self._execution = _create_execution_context(self._engine, library)
        if self._execution is None:
            raise UserError(f"{path.name} must fit the device's memory", self._log.reason(), "close other programs")

    def _allocate(self) -> None:
        self._stream = self._driver.Stream()  # not the default one, which TensorRT would synchronise with
        self._events = [self._driver.Event() for _ in range(len(STAGES) + 1)]
        for name, (dtype, shape) in _tensors(self._engine).items():
            self._buffers[name] = _Buffer(self._driver, (self.max_batch, *shape), np.dtype(NUMPY_TYPES[dtype]))
            self._execution.set_tensor_address(name, int(self._buffers[name].device))

    def run(self, frames: Frames) -> tuple[Maps, Scores, dict[str, float]]:
        """Judge uint8 (B, H, W, 3), B within the range.

        Returns copies that the caller owns of anomaly_map (B, H, W) and image_score (B,), and the
        milliseconds of each of `STAGES`.
        """
        batch = len(frames)
        self.prepare(batch)
        stream, (started, copied, executed, done) = self._stream, self._events
        maps, scores = (self._buffers[name] for name in (MAP_NAME, SCORE_NAME))
        started.record(stream)  # before the copy into pinned memory, which is a part of "copy_in"
        self._copy_in(frames)
        copied.record(stream)
        self._execute()
        executed.record(stream)
        self._driver.memcpy_dtoh_async(maps.host[:batch], maps.device, stream)
        self._driver.memcpy_dtoh_async(scores.host[:batch], scores.device, stream)
        done.record(stream)
        done.synchronize()
        times = (started.time_till(copied), copied.time_till(executed), executed.time_till(done))
        return maps.host[:batch].copy(), scores.host[:batch].copy(), dict(zip(STAGES, times, strict=True))

    @property
    def kernels(self) -> int | None:
        """How many kernels an execution launches, None where it is not captured in a graph."""
        return self._graph.kernels if self._graph is not None else None

    @property
    def stream(self) -> Any:
        """The stream on which everything executes, in order."""
        return self._stream

    def device_memory(self, name: str) -> Any:
        """Return the device memory that the plan reads `name` from or writes it to, of the largest batch."""
        return self._buffers[name].device

    def prepare(self, batch: int) -> None:
        """Make ready to `enqueue` runs of `batch` frames; waits for what is under way if that is another batch."""
        if batch != self._batch:
            self._stream.synchronize()  # what was launched must not lose its graph
            self._set_batch(batch)

    def execute(self, frames: Frames) -> None:
        """Execute for uint8 (B, H, W, 3) and wait; frames and results stay on the device."""
        self.prepare(len(frames))
        self._copy_in(frames)
        self._execute()
        self._stream.synchronize()

    def _copy_in(self, frames: Frames) -> None:
        source = self._buffers[INPUT_NAME]
        source.host[: len(frames)] = frames
        self._driver.memcpy_htod_async(source.device, source.host[: len(frames)], self._stream)

    def enqueue(self) -> None:
        """Put one execution of the prepared batch on the stream."""
        self._execute()

    def execute_ms(self, batch: int) -> float:
        """Execute once for `batch` frames that are on the device; return its milliseconds there."""
        self.prepare(batch)
        started, ended = self._events[:2]
        started.record(self._stream)
        self._execute()
        ended.record(self._stream)
        ended.synchronize()
        return float(started.time_till(ended))

    def _set_batch(self, batch: int) -> None:
        """Set the shapes for `batch` frames and capture the execution, if it is another batch than before.

        A graph belongs to the shapes that it was captured with, and an execution context to one graph.
        """
        if batch == self._batch:
            return
        self._drop_graph()
        self._batch = 0  # until all of this has succeeded
        frame = self._buffers[INPUT_NAME].host.shape[1:]
        if not self._execution.set_input_shape(INPUT_NAME, (batch, *frame)):
            raise UserError(f"the engine must take a batch of {batch}", self._log.reason(), "rebuild the plan")
        self._enqueue()  # what a new shape needs done once must not be captured
        self._stream.synchronize()
        if self._captures:
            self._capture()
        self._batch = batch

    def _capture(self) -> None:
        try:
            # TensorRT-RTX knows beforehand; TensorRT has no such question
            if hasattr(self._execution, "is_stream_capturable") and not self._execution.is_stream_capturable(
                self._stream.handle
            ):
                raise cuda.CudaError("the engine's work cannot be captured")
            self._graph = cuda.CapturedGraph(self._stream.handle, self._enqueue)
        except (cuda.CudaError, UserError) as error:
            self._captures = False
            say(f"note: executing without a CUDA graph ({error})")

    def _execute(self) -> None:
        if self._graph is not None:
            self._graph.launch()
        else:
            self._enqueue()

    def _enqueue(self) -> None:
        if not self._execution.execute_async_v3(self._stream.handle):
            raise UserError("the device must execute the plan", self._log.reason(), "rebuild the plan on this device")

    def _drop_graph(self) -> None:
        graph, self._graph = self._graph, None
        if graph is not None:
            graph.free()

    def free(self) -> None:
        """Release everything, last made first, and whatever fails on the way; a second call does nothing."""
        with ExitStack() as stack:  # runs what is pushed here from the last to the first
            stack.callback(self._drop_references)
            for buffer in self._buffers.values():
                stack.callback(buffer.free)
            stack.callback(self._drop_graph)
            if self._stream is not None:
                stack.callback(self._stream.synchronize)

    def _drop_references(self) -> None:
        """TensorRT's objects and pycuda's handles are destroyed with their last reference, in this order."""
        self._buffers.clear()
        self._events.clear()
        self._stream = self._execution = None
        self._engine = None
        self._runtime = None


def _batch_range(engine: Any) -> tuple[int, int]:
    """Return the smallest and the largest batch; the same number twice for a graph of fixed batch."""
    fixed = int(engine.get_tensor_shape(INPUT_NAME)[0])
    if fixed != -1:
        return fixed, fixed
    smallest, _, largest = engine.get_tensor_profile_shape(INPUT_NAME, 0)
    return int(smallest[0]), int(largest[0])


def _create_execution_context(engine: Any, library: Any) -> Any:
    """Return an execution context, or None where memory lacks.

    TensorRT-RTX would start with general kernels and swap in special ones as they are compiled, so
    that a frame's result would depend on how long the session has run: it is made to wait for them.
    """
    if not hasattr(library, "DynamicShapesKernelSpecializationStrategy"):
        return engine.create_execution_context()
    config = engine.create_runtime_config()
    config.dynamic_shapes_kernel_specialization_strategy = library.DynamicShapesKernelSpecializationStrategy.EAGER
    return engine.create_execution_context(config)


def _check_contract(engine: Any, path: Path, sidecar: Sidecar) -> None:
    frame = (*sidecar.engine_frame_size, 3)
    expected = {INPUT_NAME: ("UINT8", frame), MAP_NAME: ("FLOAT", sidecar.input_size), SCORE_NAME: ("FLOAT", ())}
    found = _tensors(engine)
    if found != expected:
        raise UserError(
            f"{path.name} must have the tensors that its sidecar promises: {_describe(expected)}",
            _describe(found),
            "rebuild both with export.build_engine",
        )


def _tensors(engine: Any) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return the type and, without its batch, the shape of each input and output."""
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    return {name: (engine.get_tensor_dtype(name).name, tuple(engine.get_tensor_shape(name))[1:]) for name in names}


def _describe(tensors: dict[str, tuple[str, tuple[int, ...]]]) -> str:
    return ", ".join(
        f"{name} {dtype}[{', '.join(map(str, ('B', *shape)))}]" for name, (dtype, shape) in tensors.items()
    )
