"""Copies of the next frame beside the execution of this one.

    copy stream   │ frames n+1 ▸ slot's device memory │
    main stream   │ execution of n │ results of n ▸ slot's host memory │ slot ▸ engine's input │ execution of n+1

Each slot has memory of its own for frames and results, so nothing of one run can meet another's. The engine
keeps its one input tensor, which the captured graph has the address of: a slot's frames move there within the device,
in order on the main stream (0.9 MB of a 640x480 frame, some microseconds), when the execution before has ended.
"""

from contextlib import ExitStack, suppress
from typing import Any

import numpy as np

from runtime.engines.session import Frames, Run
from runtime.engines.sidecar import INPUT_NAME, MAP_NAME, SCORE_NAME, Sidecar
from runtime.engines.trt.engine import STAGES, LoadedEngine

SLOTS = 2  # one executes, one is copied; a third would only be late
EVENTS = 5  # see Slot.submit


class Slot:
    """Memory and events of one run, for the largest batch. A constructor that fails frees what it has made."""

    def __init__(self, driver: Any, engine: LoadedEngine, sidecar: Sidecar, copy_stream: Any) -> None:
        self._driver = driver
        self._engine = engine
        self._copy_stream = copy_stream
        self._batch = 0
        self.busy = False
        with ExitStack() as made:
            size = engine.max_batch
            self._frames = _pinned(driver, (size, *sidecar.engine_frame_size, 3), np.uint8, made)
            self._maps = _pinned(driver, (size, *sidecar.input_size), np.float32, made)
            self._scores = _pinned(driver, (size,), np.float32, made)
            self._memory = driver.mem_alloc(self._frames.nbytes)
            made.callback(self._memory.free)
            self._events = [driver.Event() for _ in range(EVENTS)]
            self._made = made.pop_all()

    def submit(self, frames: Frames) -> None:
        """Put copy, execution and copy back of uint8 (B, H, W, 3) on the streams; `frames` may change afterwards."""
        driver, engine, stream = self._driver, self._engine, self._engine.stream
        started, copied, begun, executed, done = self._events
        batch = self._batch = len(frames)
        self.busy = True
        engine.prepare(batch)
        started.record(self._copy_stream)  # before the copy into pinned memory, which is a part of "copy_in"
        self._frames[:batch] = frames
        driver.memcpy_htod_async(self._memory, self._frames[:batch], self._copy_stream)
        copied.record(self._copy_stream)
        stream.wait_for_event(copied)
        begun.record(stream)
        driver.memcpy_dtod_async(engine.device_memory(INPUT_NAME), self._memory, self._frames[:batch].nbytes, stream)
        engine.enqueue()
        executed.record(stream)
        driver.memcpy_dtoh_async(self._maps[:batch], engine.device_memory(MAP_NAME), stream)
        driver.memcpy_dtoh_async(self._scores[:batch], engine.device_memory(SCORE_NAME), stream)
        done.record(stream)

    def result(self) -> Run:
        """Wait for the run and return copies of its results, which the caller owns; the slot is free then."""
        started, copied, begun, executed, done = self._events
        done.synchronize()
        times = (started.time_till(copied), begun.time_till(executed), executed.time_till(done))
        maps, scores = self._maps[: self._batch].copy(), self._scores[: self._batch].copy()
        self.busy = False
        return Run(maps, scores, dict(zip(STAGES, times, strict=True)))

    def wait(self) -> None:
        """Wait until nothing uses the slot any more, whatever of a run was put on the streams."""
        try:
            self._copy_stream.synchronize()
            self._engine.stream.synchronize()
        finally:
            self.busy = False

    def free(self) -> None:
        """Release the slot, of which nothing may be under way; a second call does nothing."""
        self._events.clear()
        self._made.close()


class Pipeline:
    """Slots for an engine, made once. Every method needs the engine's CUDA context to be current.

    `free` comes before the engine's. A constructor that fails frees what it has made.
    """

    def __init__(self, driver: Any, engine: LoadedEngine, sidecar: Sidecar) -> None:
        self._engine = engine
        self._copy_stream: Any = driver.Stream()
        self._slots: list[Slot] = []
        try:
            for _ in range(SLOTS):
                self._slots.append(Slot(driver, engine, sidecar, self._copy_stream))
        except BaseException:
            self.free()
            raise

    def submit(self, frames: Frames) -> Slot:
        """Begin a run and return its slot. Raises `RuntimeError` while all slots are busy."""
        slot = next((slot for slot in self._slots if not slot.busy), None)
        if slot is None:
            raise RuntimeError(f"{SLOTS} runs are under way: take a result before the next submit")
        try:
            slot.submit(frames)
        except BaseException:
            with suppress(Exception):  # the first error is the one to tell
                slot.wait()
            raise
        return slot

    def free(self) -> None:
        """Wait for what is under way and release everything, whatever fails on the way; once."""
        if self._copy_stream is None:
            return
        with ExitStack() as stack:  # runs what is pushed here from the last to the first
            for slot in self._slots:
                stack.callback(slot.free)
            stack.callback(self._engine.stream.synchronize)
            stack.callback(self._copy_stream.synchronize)
        self._slots.clear()
        self._copy_stream = None


def _pinned(driver: Any, shape: tuple[int, ...], dtype: type, made: ExitStack) -> Any:
    array = driver.pagelocked_empty(shape, dtype)
    made.callback(array.base.free)
    return array
