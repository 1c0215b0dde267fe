"""TensorRT on an NVIDIA GPU: a `.plan` of the engine contract, its buffers allocated once, its work one CUDA graph.

The session owns its CUDA context: it is current only while a method of the session runs, so several
sessions, or another user of CUDA in this process, do not disturb each other.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from runtime.common.closing import Closing
from runtime.common.errors import UserError
from runtime.engines.session import Frames, Maps, Run, Scores
from runtime.engines.sidecar import Artefact, Sidecar
from runtime.engines.trt import cuda
from runtime.engines.trt.engine import LoadedEngine
from runtime.engines.trt.libraries import import_libraries
from runtime.engines.trt.pipeline import SLOTS, Pipeline, Slot
from runtime.engines.trt.plan import PlanFile, check_built_for


class TensorRTSession(Closing):
    """A `.plan` on the first visible CUDA device (see `runtime.engines.session.Session`).

    `artefact` is the sidecar's entry for the file. Raises `UserError` where the device, a library or
    the plan is not what it must be. A plan of other outputs (an encoder alone) opens with `judges` False, for
    `execute` and `execute_ms` only. `cuda_graph` False launches kernel by kernel, for profilers and to compare.
    """

    slots = SLOTS
    constant_batch = True
    device_bytes = 0  # what the engine took of the device's memory: weights, activations, buffers; no CUDA context

    def __init__(
        self, path: Path, sidecar: Sidecar, artefact: Artefact, judges: bool = True, cuda_graph: bool = True
    ) -> None:
        self._sidecar = sidecar
        self._pipeline: Pipeline | None = None  # made by the first `submit`: single calls need none of its memory
        self.input_size = sidecar.input_size
        self.frame_size = sidecar.engine_frame_size
        self._stage_ms: dict[str, float] = {}
        self._driver, library = import_libraries(path, artefact)
        self._library = library.module
        check_built_for(path, artefact, library.version, cuda.compute_capability(), library.name)
        self.device = f"{cuda.device_name()}, {library.name} {library.version}"
        self._engine: LoadedEngine | None = None
        self._context = _make_context(self._driver)  # and makes it current
        try:
            with _cuda_errors(self._driver, path.name):
                self._free_before = self._driver.mem_get_info()[0]
                plan = PlanFile(path, sidecar, artefact)
                self._engine = LoadedEngine(self._driver, self._library, plan, judges, cuda_graph)
                self.max_batch = self._engine.max_batch
        except BaseException:
            self._context.detach()  # destroys it, being the current one
            raise
        self._driver.Context.pop()
        try:
            self._warm_up(sidecar.batch, judges)
        except BaseException:
            self.close()
            raise

    def _warm_up(self, batch: int, judges: bool) -> None:
        """Compile, allocate and capture what the first run would: no user's frame is to wait for that."""
        assert self._engine is not None
        batch = min(max(batch, self._engine.min_batch), self.max_batch)
        frames = np.zeros((batch, *self.frame_size, 3), np.uint8)
        if judges:
            self.run(frames)
        else:
            self.execute(frames)
        with self._current():
            self.device_bytes = max(0, self._free_before - self._driver.mem_get_info()[0])

    @contextmanager
    def _current(self) -> Iterator[LoadedEngine]:
        if self._engine is None:
            raise UserError("the session must be open", "closed", "load the engine again")
        self._context.push()
        try:
            with _cuda_errors(self._driver, self.device):
                yield self._engine
        finally:
            self._driver.Context.pop()

    def run(self, frames: Frames) -> tuple[Maps, Scores]:
        """Judge uint8 (B, H, W, 3) and return (anomaly_map (B, H, W), image_score (B,)), both float32."""
        with self._current() as engine:
            _check_frames(frames, engine.min_batch, self.max_batch, self.frame_size)
            maps, scores, self._stage_ms = engine.run(frames)
        return maps, scores

    @property
    def kernels(self) -> int | None:
        """How many kernels an execution of the last batch launches, None without a CUDA graph."""
        with self._current() as engine:
            return engine.kernels

    def execute(self, frames: Frames) -> None:
        """Copy uint8 (B, H, W, 3) to the device, execute and wait; frames and results stay there."""
        with self._current() as engine:
            _check_frames(frames, engine.min_batch, self.max_batch, self.frame_size)
            engine.execute(frames)

    def execute_ms(self, batch: int = 1) -> float:
        """Execute once on the frames that are there; return the milliseconds on the device, without any copy."""
        with self._current() as engine:
            if not engine.min_batch <= batch <= self.max_batch:
                raise UserError(f"the plan takes {engine.min_batch} to {self.max_batch} frames", str(batch))
            return engine.execute_ms(batch)

    def submit(self, frames: Frames) -> "SubmittedRun":
        """Begin to judge uint8 (B, H, W, 3); its copy goes beside the execution of the run submitted before."""
        with self._current() as engine:
            _check_frames(frames, engine.min_batch, self.max_batch, self.frame_size)
            if self._pipeline is None:
                self._pipeline = Pipeline(self._driver, engine, self._sidecar)
            return SubmittedRun(self, self._pipeline.submit(frames))

    @property
    def stage_ms(self) -> dict[str, float]:
        """Milliseconds of the last run on the device: "copy_in", "execute", "copy_out"."""
        return dict(self._stage_ms)

    @property
    def closed(self) -> bool:
        """Whether everything was released."""
        return self._engine is None

    def close(self) -> None:
        """Release the engine, its buffers and the context."""
        if self._engine is None:
            return
        engine, self._engine = self._engine, None
        pipeline, self._pipeline = self._pipeline, None
        self._context.push()
        with ExitStack() as stack:  # the last first, whatever fails
            stack.callback(self._context.detach)  # current, so that it is destroyed whichever thread calls
            stack.callback(engine.free)
            if pipeline is not None:
                stack.callback(pipeline.free)


class SubmittedRun:
    """A run of `TensorRTSession.submit` that is under way (see `runtime.engines.session.Pending`)."""

    def __init__(self, session: TensorRTSession, slot: Slot) -> None:
        self._session = session
        self._slot: Slot | None = slot

    def result(self) -> Run:
        """Wait for the run to end and return what it came to. Raises `UserError` once the session is closed."""
        slot = self._taken()
        if slot is None:
            raise RuntimeError("the result of a run can be taken once")
        with self._session._current():
            try:
                return slot.result()
            except BaseException:
                with suppress(Exception):  # the first error is the one to tell
                    slot.wait()
                raise

    def discard(self) -> None:
        """Wait for the run to end and forget it."""
        slot = self._taken()
        if slot is not None and not self._session.closed:
            with self._session._current():
                slot.wait()

    def _taken(self) -> Slot | None:
        slot, self._slot = self._slot, None
        return slot


def _make_context(driver: Any) -> Any:
    with _cuda_errors(driver, "the CUDA device"):
        return driver.Device(cuda.DEVICE_INDEX).make_context()


@contextmanager
def _cuda_errors(driver: Any, what: str) -> Iterator[None]:
    """Turn a driver's error (memory that other programs hold, a device that fell off the bus) into one line."""
    try:
        yield
    except (driver.Error, cuda.CudaError) as error:
        raise UserError(f"{what} must run", str(error), "free the device's memory, or see nvidia-smi") from error


def _check_frames(frames: Frames, smallest: int, largest: int, size: tuple[int, int]) -> None:
    good_shape = frames.ndim == 4 and smallest <= frames.shape[0] <= largest and frames.shape[1:] == (*size, 3)
    if frames.dtype != np.uint8 or not good_shape:
        raise UserError(
            f"frames must be uint8 ({smallest}..{largest}, {size[0]}, {size[1]}, 3)",
            f"{frames.dtype} {frames.shape}",
            "resize them first",
        )
