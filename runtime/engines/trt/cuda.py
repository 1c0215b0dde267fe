"""The CUDA driver by handle: what pycuda lacks, and a plain answer where no device is there.

Every driver call goes through `call`, which raises on any status but success. Nothing here imports
pycuda, so that a machine without a GPU can ask `device_problem()` and read why.
"""

import ctypes
from collections.abc import Callable
from functools import cache

LIBRARY = "libcuda.so.1"
DEVICE_INDEX = 0  # of the visible ones: CUDA_VISIBLE_DEVICES chooses among several
COMPUTE_CAPABILITY_MAJOR, COMPUTE_CAPABILITY_MINOR = 75, 76  # CUdevice_attribute
CAPTURE_MODE_THREAD_LOCAL = 1  # CUstreamCaptureMode: other threads keep their right to allocate
NAME_BYTES = 256
KERNEL_NODE, CHILD_GRAPH_NODE = 0, 4  # CUgraphNodeType


class CudaError(RuntimeError):
    """A driver call that did not return success."""


@cache
def _driver() -> ctypes.CDLL:
    return ctypes.CDLL(LIBRARY)


def _status_name(status: int) -> str:
    name = ctypes.c_char_p()
    _driver().cuGetErrorName(status, ctypes.byref(name))
    return name.value.decode() if name.value else f"status {status}"


def call(function: str, *arguments: object) -> None:
    """Call the driver's `function`. Raises `CudaError` unless it returns success."""
    status = getattr(_driver(), function)(*arguments)
    if status != 0:
        raise CudaError(f"{function}: {_status_name(status)}")


@cache
def device_problem() -> str | None:
    """Return what stands between this process and a CUDA device ("no libcuda.so.1"), None where nothing does."""
    try:
        _driver()
    except OSError:
        return f"no {LIBRARY}"
    count = ctypes.c_int()
    try:
        call("cuInit", 0)
        call("cuDeviceGetCount", ctypes.byref(count))
    except CudaError as error:
        return str(error)
    return None if count.value else "a driver without a device"


def _device() -> ctypes.c_int:
    device = ctypes.c_int()
    call("cuInit", 0)
    call("cuDeviceGet", ctypes.byref(device), DEVICE_INDEX)
    return device


def compute_capability() -> str:
    """Return the device's compute capability as "major.minor". Raises `CudaError` without a device."""
    device, values = _device(), []
    for attribute in (COMPUTE_CAPABILITY_MAJOR, COMPUTE_CAPABILITY_MINOR):
        value = ctypes.c_int()
        call("cuDeviceGetAttribute", ctypes.byref(value), attribute, device)
        values.append(str(value.value))
    return ".".join(values)


def device_name() -> str:
    """Return what the driver calls the device. Raises `CudaError` without one."""
    name = ctypes.create_string_buffer(NAME_BYTES)
    call("cuDeviceGetName", name, NAME_BYTES, _device())
    return name.value.decode()


class CapturedGraph:
    """Work that was captured from a stream once and is replayed by one call.

    `stream` is the handle of a non-default stream; `enqueue` puts the work on it and must neither
    allocate nor synchronise. Raises whatever `enqueue` raises and `CudaError` where the capture fails;
    the stream is out of capture mode either way. `kernels` is the number of kernels that a replay launches.
    """

    def __init__(self, stream: int, enqueue: Callable[[], None]) -> None:
        self._stream = ctypes.c_void_p(stream)
        self._executable = ctypes.c_void_p()
        graph = ctypes.c_void_p()
        call("cuStreamBeginCapture_v2", self._stream, CAPTURE_MODE_THREAD_LOCAL)
        try:
            enqueue()
        except BaseException:
            _driver().cuStreamEndCapture(self._stream, ctypes.byref(graph))  # the first error is the one to tell
            _destroy_graph(graph)
            raise
        call("cuStreamEndCapture", self._stream, ctypes.byref(graph))
        try:
            self.kernels = _count_kernels(graph)
            call("cuGraphInstantiateWithFlags", ctypes.byref(self._executable), graph, ctypes.c_ulonglong(0))
        finally:
            _destroy_graph(graph)

    def launch(self) -> None:
        """Put the captured work on the stream."""
        call("cuGraphLaunch", self._executable, self._stream)

    def free(self) -> None:
        """Release the graph; a second call does nothing."""
        if self._executable:
            executable, self._executable = self._executable, ctypes.c_void_p()
            call("cuGraphExecDestroy", executable)


def _count_kernels(graph: ctypes.c_void_p) -> int:
    """Return the kernels of a graph, those of graphs within it too."""
    count = ctypes.c_size_t()
    call("cuGraphGetNodes", graph, None, ctypes.byref(count))  # without an array it tells how many there are
    nodes = (ctypes.c_void_p * count.value)()
    call("cuGraphGetNodes", graph, nodes, ctypes.byref(count))
    kernels = 0
    for node in map(ctypes.c_void_p, nodes):
        kind, child = ctypes.c_int(), ctypes.c_void_p()
        call("cuGraphNodeGetType", node, ctypes.byref(kind))
        if kind.value == KERNEL_NODE:
            kernels += 1
        elif kind.value == CHILD_GRAPH_NODE:
            call("cuGraphChildGraphNodeGetGraph", node, ctypes.byref(child))  # it stays its parent's
            kernels += _count_kernels(child)
    return kernels


def _destroy_graph(graph: ctypes.c_void_p) -> None:
    if graph:
        call("cuGraphDestroy", graph)
