"""Stand-ins for pycuda's driver, TensorRT and the captured graph, to count what a session takes and gives back.

Results come from numpy; what is real in them is the order of the calls: each one asserts that a
context is current, that no memory is used after it was freed, and that shapes were set before.
"""

from types import ModuleType, SimpleNamespace

import numpy as np

from runtime.cuda import CudaError


class FakeDevice:
    """One device. `stack` are the current contexts, `live` what is allocated, `fail` names a call that must fail."""

    def __init__(self, fail=""):
        self.stack, self.live, self.calls, self.fail = [], [], [], fail
        self.memory = {}

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


class FakeEvent:
    def __init__(self, device):
        device.call("make event")
        self.device, self.recorded = device, False

    def record(self, stream):
        self.device.call("record")
        self.recorded = True

    def synchronize(self):
        assert self.recorded

    def time_till(self, other):
        assert self.recorded
        assert other.recorded
        return 0.25


def fake_driver(device):
    """The part of pycuda.driver that a session calls."""

    def pagelocked_empty(shape, dtype):
        memory = HostMemory(int(np.prod(shape)) * np.dtype(dtype).itemsize)
        memory.allocation = HostAllocation(device)
        return np.ndarray(shape, dtype, buffer=memory)

    def copy_in(target, source, stream):
        assert target in device.live
        target.data[: source.nbytes] = source.reshape(-1).view(np.uint8)

    def copy_out(target, source, stream):
        assert source in device.live
        target.reshape(-1).view(np.uint8)[:] = source.data[: target.nbytes]

    return SimpleNamespace(
        Error=FakeCudaError,
        init=lambda: None,
        Device=lambda index: SimpleNamespace(make_context=lambda: FakeContext(device)),
        Context=SimpleNamespace(pop=device.stack.pop),
        Stream=lambda: SimpleNamespace(handle=17, synchronize=lambda: device.call("synchronize")),
        Event=lambda: FakeEvent(device),
        mem_alloc=lambda size: DeviceAllocation(device, size),
        pagelocked_empty=pagelocked_empty,
        memcpy_htod_async=copy_in,
        memcpy_dtoh_async=copy_out,
    )


class FakeExecution:
    """anomaly_map = mean over RGB / 255 of every `step`-th pixel, image_score = its maximum."""

    def __init__(self, device, step):
        self.device, self.step, self.addresses, self.shape = device, step, {}, None

    def set_input_shape(self, name, shape):
        self.shape = shape
        return True

    def set_tensor_address(self, name, address):
        self.addresses[name] = address
        return True

    def execute_async_v3(self, handle):
        self.device.call("execute")
        frames, maps, scores = (
            self.device.memory[self.addresses[name]] for name in ("frames", "anomaly_map", "image_score")
        )
        pixels = frames.data[: np.prod(self.shape)].reshape(self.shape)[:, :: self.step, :: self.step]
        result = (pixels.mean(axis=3) / 255).astype(np.float32)
        best = result.max(axis=(1, 2))
        maps.data[: result.nbytes] = result.reshape(-1).view(np.uint8)
        scores.data[: best.nbytes] = best.view(np.uint8)
        return True


def fake_library(device, size, max_batch, version="10.3.0", step=1):
    """The part of TensorRT that a session calls: any plan is an engine for `size` and 1..max_batch frames.

    The frames' sides are `step` times the map's.
    """
    shapes = {"frames": (-1, step * size[0], step * size[1], 3), "anomaly_map": (-1, *size), "image_score": (-1,)}
    names = list(shapes)

    def profile_shape(name, index):
        return tuple((batch, *shapes[name][1:]) for batch in (1, max_batch, max_batch))

    engine = SimpleNamespace(
        num_io_tensors=len(names),
        get_tensor_name=names.__getitem__,
        get_tensor_shape=shapes.__getitem__,
        get_tensor_dtype=lambda name: SimpleNamespace(name="UINT8" if name == "frames" else "FLOAT"),
        get_tensor_profile_shape=profile_shape,
        create_execution_context=lambda: FakeExecution(device, step),
    )

    def deserialize(data):
        device.call("deserialize")
        return engine if data == b"plan" else None

    class ILogger:
        pass

    library = ModuleType("tensorrt")
    library.__version__ = version
    library.ILogger = ILogger
    library.Runtime = lambda log: SimpleNamespace(deserialize_cuda_engine=deserialize)
    return library


def fake_captured_graph(device):
    """A stand-in for runtime.cuda.CapturedGraph: the captured work runs at every launch."""

    class CapturedGraph(Tracked):
        kind = "graph"

        def __init__(self, stream, enqueue):
            if device.fail == "capture":
                raise CudaError("cuStreamEndCapture: CUDA_ERROR_STREAM_CAPTURE_INVALIDATED")
            super().__init__(device)
            self.enqueue = enqueue

        def launch(self):
            device.call("launch")
            self.enqueue()

    return CapturedGraph
