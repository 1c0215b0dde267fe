"""Stand-ins for pycuda's driver, TensorRT and the captured graph, to count what a session takes and gives back.

Results come from numpy; what is real in them is the order of the calls: each one asserts that a
context is current, that no memory is used after it was freed, and that shapes were set before.

Streams of a `lazy` device do their work as late as they may: when somebody waits for it, or another stream that is
waited for needs it. What reads host memory too late, or results too early, then gets other numbers.
"""

from collections import deque
from types import SimpleNamespace

import numpy as np

from runtime.engines.trt.cuda import CudaError
from tests.support.fake_tensorrt import PLAN, V10_3, recorded_library


class FakeDevice:
    """One device. `stack` are the current contexts, `live` what is allocated, `fail` names a call that must fail.

    `order` lists the work in the order in which it was done: (stream's handle, what).
    """

    memory_bytes = 1 << 30
    kernels = 41  # of a captured graph

    def __init__(self, fail="", lazy=False):
        self.stack, self.live, self.calls, self.fail = [], [], [], fail
        self.memory, self.streams, self.lazy, self.order = {}, {}, lazy, []
        self.told, self.refits, self.missing = [], True, []

    @property
    def allocated(self):
        return sum(thing.data.nbytes for thing in self.live if isinstance(thing, DeviceAllocation))

    def call(self, name):
        assert self.stack, f"{name} without a context"
        self.calls.append(name)
        if name == self.fail:
            raise FakeCudaError(f"{name} failed: out of memory")


class FakeCudaError(Exception):
    pass


class Tracked:
    """Something on the device that has to be freed once."""

    kind = ""

    def __init__(self, device):
        device.call(f"make {self.kind}")
        self.device = device
        device.live.append(self)

    def free(self):
        self.device.call(f"free {self.kind}")
        self.device.live.remove(self)  # ValueError if freed twice


class HostMemory(bytearray):
    def free(self):
        self.allocation.free()


class HostAllocation(Tracked):
    kind = "host"


class DeviceAllocation(Tracked):
    kind = "buffer"

    def __init__(self, device, size):
        super().__init__(device)
        self.data = np.zeros(size, np.uint8)
        device.memory[id(self)] = self

    def __int__(self):
        return id(self)


class FakeContext(Tracked):
    kind = "context"

    def __init__(self, device):
        device.stack.append(self)  # a new context is current
        super().__init__(device)

    def push(self):
        assert self in self.device.live, "push of a destroyed context"
        self.device.stack.append(self)

    def detach(self):
        assert self.device.stack.pop() is self
        assert [type(thing) for thing in self.device.live] == [FakeContext], "the context goes before its contents"
        self.device.live.remove(self)


class FakeStream:
    """Work in order; done at once, or on a lazy device when it is waited for."""

    def __init__(self, device):
        device.call("make stream")
        self.device, self.handle, self.queue = device, 17 + len(device.streams), deque()
        device.streams[self.handle] = self

    def put(self, what, work):
        self.queue.append((what, work))
        if not self.device.lazy:
            self.finish(lambda: False)

    def finish(self, enough):
        while self.queue and not enough():
            what, work = self.queue.popleft()
            self.device.order.append((self.handle, what))
            work()

    def synchronize(self):
        self.device.call("synchronize")
        self.finish(lambda: False)

    def wait_for_event(self, event):
        target, count = event, event.count  # as recorded now, as the driver does it
        self.put("wait", lambda: target.reach(count))


class FakeEvent:
    """Counts its records: asked for, and reached by the stream."""

    def __init__(self, device):
        device.call("make event")
        self.device, self.count, self.reached, self.stream = device, 0, 0, None

    def record(self, stream):
        self.device.call("record")
        self.count, self.stream = self.count + 1, stream
        number = self.count
        stream.put("record", lambda: setattr(self, "reached", number))

    def reach(self, count):
        assert count, "waiting for an event that was never recorded"
        self.stream.finish(lambda: self.reached >= count)
        assert self.reached >= count

    def synchronize(self):
        self.device.call("synchronize event")
        self.reach(self.count)

    def time_till(self, other):
        assert 0 < self.reached == self.count
        assert 0 < other.reached == other.count
        return 0.25


def fake_driver(device):
    """The part of pycuda.driver that a session calls."""

    def pagelocked_empty(shape, dtype):
        memory = HostMemory(int(np.prod(shape)) * np.dtype(dtype).itemsize)
        memory.allocation = HostAllocation(device)
        return np.ndarray(shape, dtype, buffer=memory)

    def copy_in(target, source, stream):
        def work():
            assert target in device.live
            target.data[: source.nbytes] = source.reshape(-1).view(np.uint8)

        device.call("copy in")
        stream.put("copy in", work)

    def copy_within(target, source, size, stream):
        def work():
            assert target in device.live
            assert source in device.live
            target.data[:size] = source.data[:size]

        device.call("copy within")
        stream.put("copy within", work)

    def copy_out(target, source, stream):
        def work():
            assert source in device.live
            target.reshape(-1).view(np.uint8)[:] = source.data[: target.nbytes]

        device.call("copy out")
        stream.put("copy out", work)

    return SimpleNamespace(
        Error=FakeCudaError,
        init=lambda: None,
        Device=lambda index: SimpleNamespace(make_context=lambda: FakeContext(device)),
        Context=SimpleNamespace(pop=device.stack.pop),
        Stream=lambda: FakeStream(device),
        Event=lambda: FakeEvent(device),
        mem_alloc=lambda size: DeviceAllocation(device, size),
        mem_get_info=lambda: (device.memory_bytes - device.allocated, device.memory_bytes),
        pagelocked_empty=pagelocked_empty,
        memcpy_htod_async=copy_in,
        memcpy_dtoh_async=copy_out,
        memcpy_dtod_async=copy_within,
        **_kernels(device),
    )


def _kernels(device):
    """Fill memory, and launch the one kernel that a module may have."""

    def fill(target, value, size):
        device.call("fill")
        target.data[:size] = value

    def load_module(ptx):
        device.call("load module")
        assert b".visible .entry nothing()" in ptx
        return SimpleNamespace(get_function=lambda name: {"nothing": launch}[name])

    def launch(block, grid, stream):
        device.call("launch kernel")
        stream.put("kernel", lambda: None)

    return {"memset_d8": fill, "module_from_buffer": load_module}


def _set_input_shape(execution, name, shape):
    execution._shape = shape
    return True


def _set_tensor_address(execution, name, address):
    execution._addresses[name] = address
    return True


def _execute(execution, handle):
    device, shape = execution._device, execution._shape
    device.call("execute")
    device.streams[handle].put("execute", lambda: _work(execution, shape))
    return True


def _work(execution, shape):
    """anomaly_map = mean over RGB / 255 of every step-th pixel, image_score = its maximum."""
    if "anomaly_map" not in execution._addresses:
        return  # a part of a network: nobody looks at what it computes
    frames, maps, scores = (
        execution._device.memory[execution._addresses[name]] for name in ("frames", "anomaly_map", "image_score")
    )
    pixels = frames.data[: np.prod(shape)].reshape(shape)[:, :: execution._step, :: execution._step]
    result = (pixels.mean(axis=3) / 255).astype(np.float32)
    best = result.max(axis=(1, 2))
    maps.data[: result.nbytes] = result.reshape(-1).view(np.uint8)
    scores.data[: best.nbytes] = best.view(np.uint8)


EXECUTION = {
    "set_input_shape": _set_input_shape,
    "set_tensor_address": _set_tensor_address,
    "execute_async_v3": _execute,
}


def fake_library(device, size, max_batch, version=V10_3, step=1, outputs=None):
    """A recorded release whose plans all open as an engine for `size` and 1..max_batch frames.

    The frames' sides are `step` times the map's; `outputs` are shapes by name in place of the contract's.
    `device.told` lists what its runtime and its refitter were told; `device.missing` are weights that no ONNX has.
    """
    shapes = {"frames": (-1, step * size[0], step * size[1], 3)}
    shapes |= outputs or {"anomaly_map": (-1, *size), "image_score": (-1,)}
    names = list(shapes)

    def profile_shape(name, index):
        return tuple((batch, *shapes[name][1:]) for batch in (1, max_batch, max_batch))

    def deserialize(runtime, data):
        device.call("deserialize")
        device.told.append(("host code", runtime.engine_host_code_allowed))
        device.told.append(("DLA core", runtime.DLA_core))
        return library.ICudaEngine() if data == PLAN else None

    def refit_from_file(parser, path):
        device.told.append(("weights", path))
        return device.refits

    def create_execution(engine, config=None):
        # TensorRT-RTX must be told to wait for its special kernels
        device.told.append(("strategy", config and config.dynamic_shapes_kernel_specialization_strategy))
        execution = library.IExecutionContext()
        execution._device, execution._step, execution._addresses = device, step, {}
        return execution

    library = recorded_library(version)
    behaviour = {
        "Runtime": {"deserialize_cuda_engine": deserialize},
        "ICudaEngine": {
            "num_io_tensors": len(names),
            "get_tensor_name": lambda self, index: names[index],
            "get_tensor_shape": lambda self, name: shapes[name],
            "get_tensor_dtype": lambda self, name: (
                library.DataType.UINT8 if name == "frames" else library.DataType.FLOAT
            ),
            "get_tensor_profile_shape": lambda self, name, index: profile_shape(name, index),
            "create_runtime_config": lambda self: library.IRuntimeConfig(),
            "create_execution_context": create_execution,
        },
        "IExecutionContext": EXECUTION | {"is_stream_capturable": lambda self, handle: True},
        "Refitter": {
            "get_missing_weights": lambda self: device.missing,
            "refit_cuda_engine": lambda self: device.told.append(("refit",)) is None,
        },
        "OnnxParserRefitter": {"num_errors": 0, "refit_from_file": refit_from_file},
    }
    for class_name, methods in behaviour.items():
        kind = getattr(library, class_name, None)
        for name, function in methods.items():
            if hasattr(kind, name):  # else the release does not have it
                setattr(kind, name, function)
    for class_name, count in (("Runtime", 1), ("Refitter", 2), ("OnnxParserRefitter", 2)):
        if hasattr(library, class_name):
            getattr(library, class_name).__init__ = _takes(count)
    return library


def _takes(count):
    def initialise(self, *arguments):
        assert len(arguments) == count

    return initialise


def fake_captured_graph(device):
    """A stand-in for runtime.engines.trt.cuda.CapturedGraph: the captured work runs at every launch."""

    class CapturedGraph(Tracked):
        kind = "graph"

        def __init__(self, stream, enqueue):
            if device.fail == "capture":
                raise CudaError("cuStreamEndCapture: CUDA_ERROR_STREAM_CAPTURE_INVALIDATED")
            super().__init__(device)
            self.stream, self.enqueue, self.kernels = device.streams[stream], enqueue, device.kernels

        def launch(self):
            device.call("launch")
            self.enqueue()

        def free(self):
            assert "execute" not in [what for what, _ in self.stream.queue], "a graph goes before its work"
            super().free()

    return CapturedGraph
