"""Where an engine's time goes: both CPU libraries on a real detector, TensorRT on a stand-in."""

import json
import re
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import openvino
import pytest

from export.frame_size import resize_inside
from export.graph.onnx_files import save_model
from export.trt.build import build_plan
from export.trt.options import BuildOptions
from runtime.common.errors import UserError
from runtime.common.files import sha256_of
from runtime.engines.backends import Backend
from runtime.engines.sidecar import Artefact, Sidecar, read_sidecar, write_sidecar
from runtime.engines.trt import cuda
from runtime.engines.trt.session import TensorRTSession
from runtime.report.layers import LayerTime, group_of
from runtime.report.profilers import (
    WARM_UP,
    ProfiledOnnxRuntime,
    ProfiledOpenVino,
    openvino_layers,
    profile,
    profile_onnxruntime,
    run_on_noise,
)
from runtime.report.tensorrt_profiler import profile_session, profile_tensorrt
from tests.support.export_fixtures import exported, small_config
from tests.support.fake_cuda_device import FakeDevice, fake_captured_graph, fake_driver, fake_library
from tests.support.fake_tensorrt import PLAN, RECORDED, V10_3
from tests.support.gpu_backend import gpu_backend
from tests.support.tiny_engine import tiny_sidecar, write_tiny_engine

CONFIG = small_config()
NO_DEVICE = cuda.device_problem()
BLOCKS = {f"decoder {tap} block {block}" for tap in (1, 2) for block in (1, 2)}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a fused detector with its sidecar."""
    path = tmp_path_factory.mktemp("engine") / "cable.onnx"
    detector = exported(CONFIG)
    save_model(detector.fused, path)
    write_sidecar(path, replace(detector.info.sidecar, artefacts=(Artefact("onnx", "fp32", sha256_of(path)),)))
    return path


def layers_of(engine: Path, backend: Backend, runs: int = 2) -> list[LayerTime]:
    if backend == "openvino":
        with closing(ProfiledOpenVino(engine, 1, read_sidecar(engine))) as session:
            return openvino_layers(session, engine, runs)
    return profile_onnxruntime(engine, 1, read_sidecar(engine), runs)


# On the CPU


@pytest.mark.parametrize(("backend", "name"), [("openvino", "OpenVINO"), ("onnxruntime", "ONNX Runtime")])
def test_a_real_detectors_profile(engine: Path, backend: Backend, name: str):
    found = profile(engine, backend, threads=1, runs=3)
    assert (found.name, found.input_size, found.engine, found.precision) == ("cable.onnx", (64, 96), name, "fp32")
    names = [group.name for group in found.groups]
    assert len(names) == len(set(names)) and set(names) > BLOCKS and "other" not in names
    assert names[:4] == ["frames", "encoder stem", "encoder layer1", "encoder layer2"]
    assert names[-2:] == ["upsampling and score", "data layout"]
    assert all(group.ms > 0 and group.layers > 0 for group in found.groups)


def test_onnxruntime_reports_every_node_of_the_graph_that_it_made(engine: Path, tmp_path: Path):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")  # the graph that runs, written by ONNX Runtime
    onnxruntime.InferenceSession(str(engine), options, providers=["CPUExecutionProvider"])
    expected = sorted(node.name for node in onnx.load(tmp_path / "optimised.onnx").graph.node)
    found = layers_of(engine, "onnxruntime")
    # numbers in the names of reorders are drawn anew every time
    assert [_unnumbered(name) for name in expected] == sorted(_unnumbered(name.split(" (")[0]) for name, _ in found)
    assert all(ms >= 0 for _, ms in found)


def _unnumbered(name: str) -> str:
    return re.sub(r"_token_\d+", "", name)


def test_openvino_reports_every_layer_that_it_executes(engine: Path):
    with closing(ProfiledOpenVino(engine, 1, read_sidecar(engine))) as session:
        found = openvino_layers(session, engine, 2)
        told = session.single.get_profiling_info()  # of the same compilation: another one may fuse other layers
        names = {op.get_friendly_name() for op in session.single.get_compiled_model().get_runtime_model().get_ops()}
    executed = [info for info in told if info.status == openvino.ProfilingInfo.Status.EXECUTED]
    assert 0 < len(executed) < len(told)  # some were fused away
    assert len(found) == len(executed) and all(ms >= 0 for _, ms in found)
    assert {info.node_name for info in executed} <= names  # so that each had its label


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_layers_that_an_engine_renames_keep_their_part(engine: Path, backend: Backend):
    renamed = {"openvino": r"Multiply_\d+ \(layer1/norm", "onnxruntime": r"tanh_1_nchwc \(layer1/block1/Tanh\)"}
    part = {"openvino": "decoder 1 likelihood", "onnxruntime": "decoder 1 block 2"}
    (name,) = [name for name, _ in layers_of(engine, backend) if re.match(renamed[backend], name)]
    assert group_of(name, CONFIG.taps) == part[backend]


def test_the_trace_is_gone(engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    beside = set(engine.parent.iterdir())
    assert profile_onnxruntime(engine, 1, read_sidecar(engine), 1)
    assert list(tmp_path.iterdir()) == [] and set(engine.parent.iterdir()) == beside


def test_runs_before_the_counted_ones_do_not_count(engine: Path, monkeypatch: pytest.MonkeyPatch):
    """Make a trace of one layer whose first runs are slow, and one that was slow in a single run."""

    def events(session: Any) -> list[dict[str, Any]]:
        warm_up = [9000] * (1 + WARM_UP)
        return [
            {"cat": "Node", "name": f"{name}_kernel_time", "dur": us, "args": {"node_index": "3"}}
            for name, counted in (("encoder/maxpool/MaxPool", [100, 200, 300]), ("score/TopK", [5, 5000, 6]))
            for us in warm_up + counted
        ] + [{"cat": "Session", "name": "model_run", "dur": 10_000}]

    monkeypatch.setattr(ProfiledOnnxRuntime, "events", events)
    assert layers_of(engine, "onnxruntime", runs=3) == [("encoder/maxpool/MaxPool", 0.2), ("score/TopK", 0.006)]


def test_openvinos_mean_of_all_runs_is_taken_apart(engine: Path, monkeypatch: pytest.MonkeyPatch):
    """Two runs of 10 ms, then two of 5 and 7: the mean of all is told as 10 and then as 8."""
    means = iter([{"encoder/maxpool/MaxPool": 10.0, "new": 0.0}, {"encoder/maxpool/MaxPool": 8.0, "new": 0.0}])
    monkeypatch.setattr(ProfiledOpenVino, "mean_ms", lambda session: next(means))
    assert WARM_UP == 2
    ((_, ms), new) = layers_of(engine, "openvino", runs=2)
    assert ms == pytest.approx(6.0, rel=1e-12) and new == ("new", 0.0)


def test_openvinos_figure_is_the_mean_of_all_runs_so_far(engine: Path):
    """What a run adds is never negative, so the mean of n + 1 runs is at least n / (n + 1) of that of n."""
    session = ProfiledOpenVino(engine, 1, read_sidecar(engine))
    means = []
    for _ in range(50):
        run_on_noise(session, 1)
        means.append(session.mean_ms())
    session.close()
    rounding = 1e-3 * len(means[0])  # each layer's is told in whole microseconds
    for n, (before, after) in enumerate(pairwise(means), start=1):
        assert sum(after.values()) + rounding >= sum(before.values()) * n / (n + 1)


def test_an_engine_with_the_resize_inside_gets_frames_of_its_size(tmp_path: Path):
    detector = exported(CONFIG)
    path = tmp_path / "cable.onnx"
    save_model(resize_inside(detector.fused, (100, 140), "cable"), path)
    artefacts = (Artefact("onnx", "fp32", sha256_of(path)),)
    write_sidecar(path, replace(detector.info.sidecar, frame_size=(100, 140), artefacts=artefacts))
    for backend in ("openvino", "onnxruntime"):
        found = profile(path, backend, threads=1, runs=1)
        frames = next(group for group in found.groups if group.name == "frames")
        assert found.input_size == CONFIG.input_size and frames.layers > 5


def test_a_graph_of_other_names_is_other(tmp_path: Path):
    found = profile(write_tiny_engine(tmp_path), "onnxruntime", threads=1, runs=1)
    assert {group.name for group in found.groups} == {"other"}


# What is refused


def test_what_cannot_be_profiled_is_refused_as_when_it_is_loaded(engine: Path, tmp_path: Path):
    with pytest.raises(UserError, match="a profile needs 1 run or more; found 0"):
        profile(engine, runs=0)
    with pytest.raises(UserError, match=r"missing\.onnx needs missing\.json beside it"):
        profile(tmp_path / "missing.onnx")
    copied = tmp_path / "cable.onnx"
    copied.write_bytes(engine.read_bytes() + b"\0")
    write_sidecar(copied, read_sidecar(engine))
    with pytest.raises(UserError, match=r"must be one of the files that cable\.json describes"):
        profile(copied)
    copied.write_bytes(b"no graph")
    for backend in ("openvino", "onnxruntime"):
        with pytest.raises(UserError, match=r"cable\.onnx must be an ONNX"):
            layers_of(copied, backend)


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    (tmp_path / "cable.onnx").write_bytes(b"onnx")
    return tmp_path / "cable.plan"


SIZE = (16, 24)


def write_plan(plan: Path, version: str = V10_3) -> Sidecar:
    plan.write_bytes(PLAN)
    library, text = version.split()
    artefact = Artefact("plan", "fp16", sha256_of(plan), library, text, "8.7")
    sidecar = replace(tiny_sidecar(plan.with_suffix(".onnx"), SIZE, ("layer2",)), artefacts=(artefact,))
    write_sidecar(plan, sidecar)
    return sidecar


@pytest.mark.skipif(NO_DEVICE is None, reason="a CUDA device is here")
def test_a_plan_without_a_gpu_names_the_alternative(plan: Path):
    write_plan(plan)
    with pytest.raises(UserError) as caught:
        profile(plan)
    expected = f"cable.plan needs a CUDA device; found {NO_DEVICE}; use --engine cable.onnx, which runs on the CPU"
    assert str(caught.value) == expected


# TensorRT, on a counting stand-in (see fake_cuda_device)

MS = {  # by layer, of each run: two that warm up, three that count
    "Reformatting CopyNode for Input Tensor 0 to encoder/bn1/Conv": (9, 9, 0.25, 0.5, 0.25),
    "encoder/bn1/Conv + encoder/relu/Relu": (9, 9, 1, 2, 30),
    "__myl_TanhMulExp_myl0_3": (9, 9, 0.5, 0.5, 0.5),
    "__myl_MulAdd_myl0_4": (9, 9, 0.125, 0.125, 0.125),
}
INSPECTED = [  # in the wording of TensorRT 10: nodes are set apart by control characters
    {"Name": "encoder/bn1/Conv + encoder/relu/Relu", "Metadata": "[ONNX Layer: encoder/bn1/Conv]"},
    {
        "Name": "__myl_TanhMulExp_myl0_3",
        "Metadata": "[ONNX Layer: layer2/block0/Tanh]\x1f[ONNX Layer: layer2/block0/Exp]\x1e[ONNX Layer: score/Min]",
    },
    {"Name": "__myl_MulAdd_myl0_4"},
    "names alone",
]
INFORMATION = json.dumps({"Layers": INSPECTED, "Bindings": ["frames"]})
Opened = Callable[..., FakeDevice]


@pytest.fixture
def device_with(plan: Path, monkeypatch: pytest.MonkeyPatch) -> Opened:
    """Return a function that makes a device whose plans report the layers `MS`."""

    def make(version: str = V10_3, information: str = INFORMATION, fixed_batch: int | None = None) -> FakeDevice:
        device = FakeDevice()
        library = fake_library(device, SIZE, 3, version)
        device.reports, device.profiled = True, []
        execute = library.IExecutionContext.execute_async_v3

        class IProfiler:
            ready = False

            def __init__(self) -> None:
                self.ready = True

        def reporting(execution: Any, handle: int) -> bool:
            done: bool = execute(execution, handle)
            if execution.profiler is not None and device.reports:
                assert isinstance(execution.profiler, IProfiler) and execution.profiler.ready
                for name, ms in MS.items():
                    execution.profiler.report_layer_time(name, ms[len(device.profiled)])
                device.profiled.append(execution._shape)
            return done

        class Inspector:
            def get_engine_information(self, form: Any) -> str:
                assert self.execution_context is not None and form.name == "JSON"
                return information

        library.IProfiler = IProfiler
        library.IExecutionContext.execute_async_v3 = reporting
        library.ICudaEngine.create_engine_inspector = lambda engine: Inspector()
        if fixed_batch:
            ranges = library.ICudaEngine.get_tensor_profile_shape
            library.ICudaEngine.get_tensor_profile_shape = lambda engine, name, index: tuple(
                (fixed_batch, *shape[1:]) for shape in ranges(engine, name, index)
            )
        monkeypatch.setitem(sys.modules, "pycuda.driver", fake_driver(device))
        monkeypatch.setitem(sys.modules, version.split()[0], library)
        monkeypatch.setattr(cuda, "device_problem", lambda: None)
        monkeypatch.setattr(cuda, "compute_capability", lambda: "8.7")
        monkeypatch.setattr(cuda, "device_name", lambda: "Stand-in")
        monkeypatch.setattr(cuda, "CapturedGraph", fake_captured_graph(device))
        return device

    return make


@pytest.mark.parametrize("version", RECORDED)
def test_a_plans_profile_on_every_release(version: str, plan: Path, device_with: Opened):
    device = device_with(version)
    write_plan(plan, version)
    found = profile(plan, runs=3)
    assert found.engine == {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT-RTX"}[version.split()[0]]
    assert (found.name, found.input_size, found.precision) == ("cable.plan", SIZE, "fp16")
    assert [(group.name, group.ms, group.layers) for group in found.groups] == [
        ("encoder stem", 2, 1),  # the median: a run that something else held up does not count
        ("decoder 1 block 1", 0.5, 1),
        ("data layout", 0.25, 1),
        ("other", 0.125, 1),
    ]
    assert device.live == [] and device.stack == []


def test_the_graph_is_not_launched_and_every_run_is_waited_for(plan: Path, device_with: Opened):
    device = device_with()
    sidecar = write_plan(plan)
    with TensorRTSession(plan, sidecar, sidecar.artefacts[0]) as session:
        before = len(device.calls)
        names = [name for name, _ in profile_session(session, 3)]
        calls = device.calls[before:]
    assert names == [
        "Reformatting CopyNode for Input Tensor 0 to encoder/bn1/Conv",
        "encoder/bn1/Conv + encoder/relu/Relu",
        "__myl_TanhMulExp_myl0_3 (layer2/block0/Tanh + layer2/block0/Exp + score/Min)",
        "__myl_MulAdd_myl0_4",
    ]
    assert calls[-10:] == ["execute", "synchronize"] * 5 and calls[:-10].count("launch") == 1  # frames onto the device


def test_a_plan_of_a_fixed_batch_is_counted_by_frame(plan: Path, device_with: Opened):
    device = device_with(fixed_batch=2)
    layers = dict(profile_tensorrt(plan, write_plan(plan), 3))
    assert [shape[0] for shape in device.profiled] == [2] * 5
    assert layers["encoder/bn1/Conv + encoder/relu/Relu"] == 1


@pytest.mark.parametrize("information", ["", "no JSON", "{}", '{"Layers": ["a", "b"]}'])
def test_a_plan_that_tells_no_nodes_keeps_its_layers_names(information: str, plan: Path, device_with: Opened):
    device_with(information=information)
    assert [name for name, _ in profile_tensorrt(plan, write_plan(plan), 1)] == list(MS)


def test_a_library_that_reports_nothing_is_an_error(plan: Path, device_with: Opened):
    device_with().reports = False
    with pytest.raises(UserError, match=r"cable\.plan must report its layers' times; found none"):
        profile_tensorrt(plan, write_plan(plan), 1)


def test_a_device_that_fails_is_one_line(plan: Path, device_with: Opened):
    device = device_with()
    sidecar = write_plan(plan)
    with TensorRTSession(plan, sidecar, sidecar.artefacts[0]) as session:
        device.fail = "execute"
        with pytest.raises(UserError, match=r"Stand-in, tensorrt 10\.3\.0 must run; found execute failed"):
            profile_session(session, 1)
        device.fail = ""
    assert device.live == [] and device.stack == []


@pytest.mark.gpu
def test_a_real_plans_layers_take_time(engine: Path, tmp_path: Path):
    backend, targets = gpu_backend()
    built = build_plan(engine, BuildOptions("fp32", 1, compute_capabilities=targets), backend)
    path = tmp_path / "cable.plan"
    path.write_bytes(built.data)
    artefact = replace(built.artefact, sha256=sha256_of(path))
    write_sidecar(path, replace(read_sidecar(engine), artefacts=(artefact,)))
    groups = {group.name: group.ms for group in profile(path, runs=3).groups}
    assert sum(groups.values()) > 0 and any(name.startswith("encoder") for name in groups)
    assert groups.get("other", 0.0) < 0.5 * sum(groups.values())
