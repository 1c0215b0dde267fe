"""What a CUDA device takes for what no network gets around: moving bytes in its memory, launching a kernel."""

import importlib
from contextlib import ExitStack
from typing import Any

from runtime.common.errors import UserError
from runtime.engines.trt import cuda

COPY_BYTES = 1 << 28  # a multiple of every cache, and little enough for the smallest Jetson
LAUNCHES = 1000  # of a kernel that does nothing, one after the other in one CUDA graph
HOW = (
    f"GB/s: a copy of {COPY_BYTES >> 20} MiB within the device's memory, bytes read and written; launch: one of "
    f"{LAUNCHES} kernels that do nothing, in a CUDA graph; the best run of each"
)
# for the driver's own compiler, so that no CUDA toolkit is needed; it takes PTX of any older target
NOTHING_PTX = b"""
.version 6.0
.target sm_50
.address_size 64
.visible .entry nothing()
{
    ret;
}
"""


def gb_s(copy_ms: float) -> float:
    """Return the 10^9 bytes a second of a copy that took so long: each byte is read and written."""
    return 1e-6 * 2 * COPY_BYTES / copy_ms


def launch_us(graph_ms: float) -> float:
    """Return the microseconds of one launch in a graph that took so long."""
    return 1e3 * graph_ms / LAUNCHES


def open_device() -> "DeviceProbe":
    """Open the first visible device. Raises `UserError` without one, or where its memory does not suffice."""
    if problem := cuda.device_problem():
        raise UserError("the device's limits need a CUDA device", problem, "leave --plans out")
    try:
        driver = importlib.import_module("pycuda.driver")
    except ImportError as error:
        raise UserError("the device's limits need pycuda", str(error), "pip install pycuda") from None
    driver.init()
    try:
        return DeviceProbe(driver)
    except (driver.Error, cuda.CudaError) as error:
        raise UserError("the device's limits must be measured", str(error), "free the device's memory") from error


class DeviceProbe:
    """Two buffers and a graph of launches on a stream of their own, in a context of its own.

    A constructor that fails frees what it has made, and raises pycuda's error or `CudaError`.
    """

    def __init__(self, driver: Any) -> None:
        self._driver = driver
        with ExitStack() as made:
            made.callback(driver.Device(cuda.DEVICE_INDEX).make_context().detach)
            made.callback(self._forget)
            self._stream: Any = driver.Stream()
            self._events: Any = driver.Event(), driver.Event()
            self._buffers: Any = [self._buffer(value, made) for value in (0x5A, 0xA5)]
            self._module: Any = driver.module_from_buffer(NOTHING_PTX)
            nothing = self._module.get_function("nothing")
            self._graph = cuda.CapturedGraph(self._stream.handle, lambda: self._launch_all(nothing))
            made.callback(self._graph.free)
            made.callback(self._stream.synchronize)
            self._made = made.pop_all()

    def _buffer(self, value: int, made: ExitStack) -> Any:
        """Return a buffer that was written: memory that never was may be read as one page."""
        buffer = self._driver.mem_alloc(COPY_BYTES)
        made.callback(buffer.free)
        self._driver.memset_d8(buffer, value, COPY_BYTES)
        return buffer

    def close(self) -> None:
        """Release everything; a second call does nothing."""
        self._made.close()

    def _forget(self) -> None:
        """Drop pycuda's handles, which are destroyed with their last reference, while their context is there."""
        self._stream = self._events = self._buffers = self._module = None

    def _launch_all(self, kernel: Any) -> None:
        for _ in range(LAUNCHES):
            kernel(block=(1, 1, 1), grid=(1, 1), stream=self._stream)

    def copy_ms(self) -> float:
        """Copy `COPY_BYTES` within the device's memory; return the milliseconds there."""
        source, target = self._buffers
        return self._timed(lambda: self._driver.memcpy_dtod_async(target, source, COPY_BYTES, self._stream))

    def launch_ms(self) -> float:
        """Replay `LAUNCHES` kernels that do nothing; return the milliseconds on the device."""
        return self._timed(self._graph.launch)

    def _timed(self, enqueue: Any) -> float:
        started, ended = self._events
        started.record(self._stream)
        enqueue()
        ended.record(self._stream)
        ended.synchronize()
        return float(started.time_till(ended))
