"""TensorRT-RTX's plug-in for ONNX Runtime, as far as a machine without a GPU lets it be seen."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

import runtime
from runtime.common.errors import UserError
from runtime.engines import onnxruntime_rtx_session as session_module
from runtime.engines.backends import BACKENDS, CPU_BACKENDS, choose_backend
from runtime.engines.onnxruntime_rtx_session import PLUG_IN, OnnxRuntimeRtxSession, check_provider, find_devices
from runtime.engines.onnxruntime_session import session_options
from runtime.engines.trt import cuda
from tests.support.installed_aside import installed_aside, run_with
from tests.support.paths import ROOT
from tests.support.stand_in_driver import make_driver
from tests.support.tiny_engine import write_tiny_engine

NO_DEVICE = cuda.device_problem()
without_device = pytest.mark.skipif(NO_DEVICE is None, reason="a CUDA device is here")
needs_compiler = pytest.mark.skipif(not (shutil.which("cc") and shutil.which("nm")), reason="cc and nm")
PACKAGE = "onnxruntime-ep-nv-tensorrt-rtx-cu13==0.5.0"
OLD = "onnxruntime==1.23.2"
CPU = "CPUExecutionProvider"


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    return write_tiny_engine(tmp_path)


@without_device
def test_a_machine_without_a_gpu_is_one_line_and_never_the_cpu(engine: Path):
    words = ["--engine", str(engine), "--source", str(engine.parent), "--backend", "onnxruntime-rtx"]
    ended = subprocess.run([sys.executable, "-m", "runtime.infer", *words], cwd=ROOT, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (2, "")
    expected = f"error: --backend onnxruntime-rtx needs an NVIDIA RTX GPU; found {NO_DEVICE}; leave --backend out, "
    assert ended.stderr == expected + "which judges on the CPU\n"


def test_it_is_asked_for_by_name_and_never_chosen():
    assert choose_backend("onnxruntime-rtx", "float32") == "onnxruntime-rtx"
    assert choose_backend("auto", "float32") in CPU_BACKENDS
    assert set(BACKENDS) - set(CPU_BACKENDS) == {"onnxruntime-rtx"}
    with pytest.raises(UserError, match=r"bfloat16 needs OpenVINO.*found onnxruntime-rtx"):
        choose_backend("onnxruntime-rtx", "bfloat16")


def test_onnxruntime_without_plug_ins(engine: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cuda, "device_problem", lambda: None)
    monkeypatch.delattr(onnxruntime, "register_execution_provider_library")
    expected = r"needs ONNX Runtime 1\.24 or later; found ONNX Runtime [\d.]+, which takes no plug-ins; pip install"
    with pytest.raises(UserError, match=expected):
        runtime.load(engine, backend="onnxruntime-rtx")


def test_the_plug_in_is_not_installed(engine: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cuda, "device_problem", lambda: None)
    monkeypatch.setitem(sys.modules, PLUG_IN, None)
    with pytest.raises(UserError, match=rf"needs {PLUG_IN}; .*'cflow-edge\[onnxruntime-rtx\]'"):
        runtime.load(engine, backend="onnxruntime-rtx")


def test_a_session_that_runs_elsewhere_is_refused(engine: Path):
    real = onnxruntime.InferenceSession(str(engine), providers=[CPU])
    with pytest.raises(UserError, match=rf"NvTensorRTRTX\w+ must run the graph; found {CPU}; leave --backend out"):
        check_provider(real, "NvTensorRTRTXExecutionProvider")
    assert real._enable_fallback is False  # what a failed run would ask
    check_provider(real, CPU)


def test_the_graph_is_refused_where_a_part_of_it_would_run_on_the_cpu(engine: Path, monkeypatch: pytest.MonkeyPatch):
    """ONNX Runtime itself refuses it by the session's options: here the whole graph, for there is no other provider."""

    class Opener:
        @staticmethod
        def InferenceSession(path: str, options: _WithoutDevices) -> onnxruntime.InferenceSession:
            return onnxruntime.InferenceSession(path, options.real)

    plug_in = type("PlugIn", (), {"__version__": "0", "get_ep_name": staticmethod(lambda: CPU)})
    monkeypatch.setattr(session_module, "import_plug_in", lambda: plug_in)
    monkeypatch.setattr(session_module, "find_devices", lambda plug_in: [])
    monkeypatch.setattr(session_module, "session_options", _WithoutDevices)
    monkeypatch.setattr(session_module, "import_onnxruntime", lambda: Opener)
    with pytest.raises(UserError, match="fallback to CPU EP has been explicitly disabled"):
        OnnxRuntimeRtxSession(engine)


class _WithoutDevices:
    """Real options of a session, but for the devices, of which this machine has none."""

    def __init__(self, threads: int) -> None:
        self.real = session_options(threads)
        self.add_session_config_entry = self.real.add_session_config_entry

    def add_provider_for_devices(self, devices: list[object], options: dict[str, str]) -> None:
        assert devices == []


LOAD = """
import sys, onnxruntime, runtime
from pathlib import Path
from runtime.common.errors import UserError
for _ in range(2):  # the plug-in is registered once in a process
    try:
        runtime.load(Path(sys.argv[1]), backend="onnxruntime-rtx")
        print("opened")
    except UserError as error:
        print(error)
print([device.ep_name for device in onnxruntime.get_ep_devices()] if hasattr(onnxruntime, "get_ep_devices") else "")
"""


@pytest.mark.slow
@needs_compiler
@without_device
@pytest.mark.parametrize("sites", [(), (OLD,)], ids=["fits", "too old"])
def test_the_real_plug_in_on_a_driver_whose_device_is_none_of_its_kind(
    sites: tuple[str, ...], engine: Path, tmp_path: Path
):
    folder = installed_aside(PACKAGE)
    extension = folder / PLUG_IN / "libonnxruntime_providers_nv_tensorrt_rtx.so"
    libraries = make_driver(extension, tmp_path)
    ended = run_with([*(installed_aside(one) for one in sites), folder], "-c", LOAD, str(engine), libraries=libraries)
    assert (ended.returncode, ended.stderr) == (0, "")
    first, second, devices = ended.stdout.splitlines()
    assert first == second
    assert devices == f"['{CPU}']"  # which is not taken
    if sites:
        expected = "ONNX Runtime must take TensorRT-RTX's plug-in; found "
        assert first.startswith(expected) and "ONNX Runtime 1.23.2: " in first and "Host ORT is too old" in first
        assert first.endswith("; pip install 'cflow-edge[onnxruntime-rtx]' --upgrade")
    else:
        assert first.startswith("TensorRT-RTX's plug-in must find an RTX GPU, Ampere or later; found none, ")
        assert f"{PLUG_IN} 0.5.0, ONNX Runtime {onnxruntime.__version__}" in first


def test_devices_of_other_providers_do_not_count(monkeypatch: pytest.MonkeyPatch):
    plug_in = type("PlugIn", (), {"__version__": "0", "get_ep_name": staticmethod(lambda: "Other")})
    monkeypatch.setattr(session_module, "_registered", {"Other"})
    with pytest.raises(UserError, match="must find an RTX GPU"):
        find_devices(plug_in)


@pytest.mark.gpu
def test_on_a_device_it_judges_as_the_cpu_does(engine: Path):
    if NO_DEVICE is not None:
        pytest.skip(f"needs a CUDA device: {NO_DEVICE}")
    pytest.importorskip(PLUG_IN, reason="pip install '.[onnxruntime-rtx]'")
    frames = np.random.default_rng(5).integers(0, 256, (3, 32, 48, 3)).astype(np.uint8)
    with (
        runtime.load(engine, backend="onnxruntime-rtx") as detector,
        runtime.load(engine, backend="onnxruntime", threads=1) as reference,
    ):
        assert "TensorRT-RTX" in detector.session.device and "CPU" not in detector.session.device
        maps, scores = detector.session.run(frames)
        expected_maps, expected_scores = reference.session.run(frames)
    np.testing.assert_allclose(maps, expected_maps, rtol=1e-5)  # a mean of three and a product, in float32
    np.testing.assert_allclose(scores, expected_scores, rtol=1e-5)
