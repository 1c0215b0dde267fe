"""ONNX Runtime on an NVIDIA RTX GPU: an `.onnx` compiled there by TensorRT-RTX's plug-in, for those who want no plan.

Nothing of the graph runs on the CPU: a session that would have to is refused, at its start and ever after.
"""

import importlib
from pathlib import Path
from typing import Any

from runtime.common.errors import UserError
from runtime.engines.cpu_session import Signature, one_line
from runtime.engines.external_data import refuse_external_data
from runtime.engines.onnxruntime_session import OnnxRuntimeSession, import_onnxruntime, session_options
from runtime.engines.sidecar import Sidecar
from runtime.engines.trt import cuda

PLUG_IN = "onnxruntime_ep_nv_tensorrt_rtx"
INSTALL = "pip install 'cflow-edge[onnxruntime-rtx]'"
CPU_CURE = "leave --backend out, which judges on the CPU"
NEEDED_OF_ONNXRUNTIME = ("register_execution_provider_library", "get_ep_devices")


class OnnxRuntimeRtxSession(OnnxRuntimeSession):
    """An `.onnx` of the engine contract on the first GPU that TensorRT-RTX's plug-in offers.

    Takes and raises what `CpuSession` does, and `UserError` for a machine without such a GPU, for versions of
    ONNX Runtime and the plug-in that do not fit, and for a graph that would run on the CPU in part.
    """

    library = "ONNX Runtime with TensorRT-RTX"
    constant_batch = True  # kernels are compiled for a shape when it comes first

    def __init__(self, path: str | Path, threads: int | None = None, sidecar: Sidecar | None = None) -> None:
        super().__init__(path, threads, sidecar)
        self.device = f"{cuda.device_name()}, {self.library} {self._version()}"

    def _open(self, path: Path) -> Signature:
        refuse_external_data(path)
        options = session_options(self.threads)
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        plug_in = import_plug_in()
        name = str(plug_in.get_ep_name())
        options.add_provider_for_devices(find_devices(plug_in)[:1], {})
        self._session = import_onnxruntime().InferenceSession(str(path), options)
        check_provider(self._session, name)
        return self._signature()

    def _version(self) -> str:
        return f"{import_plug_in().__version__} in {super()._version()}"


def import_plug_in() -> Any:
    """Import the plug-in's package. Raises `UserError` where it, a GPU or a fitting ONNX Runtime is missing."""
    if problem := cuda.device_problem():
        raise UserError("--backend onnxruntime-rtx needs an NVIDIA RTX GPU", problem, CPU_CURE)
    onnxruntime = import_onnxruntime()
    if not all(hasattr(onnxruntime, name) for name in NEEDED_OF_ONNXRUNTIME):
        found = f"ONNX Runtime {onnxruntime.__version__}, which takes no plug-ins"
        raise UserError("--backend onnxruntime-rtx needs ONNX Runtime 1.24 or later", found, INSTALL)
    try:
        return importlib.import_module(PLUG_IN)
    except (ImportError, OSError) as error:
        raise UserError(f"--backend onnxruntime-rtx needs {PLUG_IN}", str(error), INSTALL) from None


def find_devices(plug_in: Any) -> list[Any]:
    """Register the plug-in, once in a process, and return the devices (`OrtEpDevice`) that it offers, one at least.

    Raises `UserError` where ONNX Runtime does not take it, with its reason, and where there is no device.
    """
    onnxruntime, name = import_onnxruntime(), str(plug_in.get_ep_name())
    versions = f"{PLUG_IN} {plug_in.__version__}, ONNX Runtime {onnxruntime.__version__}"
    if name not in _registered:
        try:
            onnxruntime.register_execution_provider_library(name, plug_in.get_library_path())
        except Exception as error:  # ONNX Runtime's errors share no base class below Exception
            reason = f"{versions}: {one_line(error)}"
            raise UserError("ONNX Runtime must take TensorRT-RTX's plug-in", reason, f"{INSTALL} --upgrade") from None
        _registered.add(name)
    devices = [device for device in onnxruntime.get_ep_devices() if device.ep_name == name]
    if not devices:
        raise UserError("TensorRT-RTX's plug-in must find an RTX GPU, Ampere or later", f"none, {versions}", CPU_CURE)
    return devices


_registered: set[str] = set()  # ONNX Runtime has no question for this, and refuses a second time


def check_provider(session: Any, name: str) -> None:
    """Raise `UserError` unless `session` computes with the provider `name`, and keep it from ever taking another."""
    session.disable_fallback()  # else a run that fails is tried again on the CPU, with a line on stdout
    providers = session.get_providers()
    if providers[:1] != [name]:
        raise UserError(f"{name} must run the graph", ", ".join(providers) or "no provider", CPU_CURE)
