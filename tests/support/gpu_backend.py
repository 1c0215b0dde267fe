"""The TensorRT that builds for the device at hand; tests that ask for it are skipped, with the reason, without one."""

import pytest

from export.trt.compat import find_backend, target_names
from runtime.engines.trt import cuda


def gpu_backend():
    """Return (library, the targets to build for)."""
    if (problem := cuda.device_problem()) is not None:
        pytest.skip(f"needs a CUDA device: {problem}")
    pytest.importorskip("pycuda.driver", reason="pycuda is not installed")
    backend, capability = find_backend(), cuda.compute_capability()
    if not backend.builds_without_device:
        return backend, ()
    if capability not in target_names(backend.module):
        pytest.skip(f"{backend.library} does not build for compute capability {capability}")
    return backend, (capability,)
