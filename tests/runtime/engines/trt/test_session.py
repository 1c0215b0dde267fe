import sys
from dataclasses import replace

import numpy as np
import pytest

from runtime.common.errors import UserError
from runtime.common.files import sha256_of
from runtime.engines.sidecar import Artefact
from runtime.engines.trt import cuda
from runtime.engines.trt import engine as tensorrt_engine
from runtime.engines.trt.libraries import cpu_alternative, find_library
from runtime.engines.trt.session import TensorRTSession
from tests.support.fake_cuda_device import FakeDevice, fake_captured_graph, fake_driver, fake_library
from tests.support.fake_tensorrt import LEAN, RECORDED, TENSORRT, V10_3
from tests.support.small_graphs import MAX_BATCH, SIZE, frames_of, sidecar_for, small_model

ARTEFACT = Artefact("plan", "fp16", "0" * 64, "tensorrt", "10.3.0", "8.6+8.7")
NO_DEVICE = cuda.device_problem()
without_device = pytest.mark.skipif(NO_DEVICE is None, reason="a CUDA device is here")


@pytest.fixture
def plan(tmp_path):
    (tmp_path / "cable.onnx").write_bytes(small_model().SerializeToString())
    (tmp_path / "cable.plan").write_bytes(b"plan")
    return tmp_path / "cable.plan"


# What a machine without a device says


@without_device
def test_no_device_is_one_line_that_names_the_onnx(plan):
    with pytest.raises(UserError) as caught:
        TensorRTSession(plan, sidecar_for(plan.with_suffix(".onnx")), ARTEFACT)
    expected = f"cable.plan needs a CUDA device; found {NO_DEVICE}; use --engine cable.onnx, which runs on the CPU"
    assert str(caught.value) == expected


@without_device
def test_the_driver_is_asked_without_pycuda():
    assert "pycuda" not in sys.modules
    with pytest.raises((cuda.CudaError, OSError)):
        cuda.compute_capability()


def test_the_alternative_is_the_onnx_of_the_same_sidecar(tmp_path):
    plan = tmp_path / "cable.fp16.plan"
    assert cpu_alternative(plan).startswith("copy cable.onnx beside it")
    (tmp_path / "cable.onnx").touch()
    assert cpu_alternative(plan) == "use --engine cable.onnx, which runs on the CPU"
    (tmp_path / "cable.fp16.onnx").touch()
    assert cpu_alternative(plan) == "use --engine cable.fp16.onnx, which runs on the CPU"


def test_a_plan_of_an_unknown_library(plan):
    with pytest.raises(UserError, match="must be of tensorrt or tensorrt_rtx; found 'openvino'"):
        TensorRTSession(plan, sidecar_for(plan.with_suffix(".onnx")), replace(ARTEFACT, library="openvino"))


# What a session takes and gives back, on a counting stand-in (see fake_cuda_device)


@pytest.fixture
def open_on(plan, monkeypatch):
    """Return a function that opens the plan on a `FakeDevice` with a recorded release."""

    def open_session(
        device, release=V10_3, step=1, frame_size=None, outputs=None, judges=True, cuda_graph=True, **changes
    ):
        name, text = release.split()
        library = fake_library(device, SIZE, MAX_BATCH, release.replace("_bindings", ""), step, outputs)
        monkeypatch.setitem(sys.modules, "pycuda.driver", fake_driver(device))
        monkeypatch.setitem(sys.modules, name, library)
        monkeypatch.setattr(cuda, "device_problem", lambda: None)
        monkeypatch.setattr(cuda, "compute_capability", lambda: "8.7")
        monkeypatch.setattr(cuda, "device_name", lambda: "Stand-in")
        monkeypatch.setattr(cuda, "CapturedGraph", fake_captured_graph(device))
        artefact = replace(ARTEFACT, **{"library": name, "version": text, **changes})
        sidecar = replace(sidecar_for(plan.with_suffix(".onnx")), frame_size=frame_size)
        return TensorRTSession(plan, sidecar, artefact, judges, cuda_graph)

    return open_session


def expected_maps(frames):
    return (frames.mean(axis=3) / 255).astype(np.float32)


@pytest.mark.parametrize("version", RECORDED)
def test_a_session_on_every_release(version, open_on):
    device = FakeDevice()
    frames = frames_of(2)
    with open_on(device, version) as session:
        np.testing.assert_array_equal(session.run(frames)[0], expected_maps(frames))
        assert session.device == f"Stand-in, {version}"
    assert device.live == []
    waits = [getattr(value, "name", None) for name, value in device.told if name == "strategy"]
    assert waits == ["EAGER" if version.startswith("tensorrt_rtx") else None]
    assert ("host code", None) in device.told  # not allowed unless the plan is version-compatible
    assert ("DLA core", None) in device.told


@pytest.mark.parametrize("version", TENSORRT)
def test_a_version_compatible_plan_may_run_its_own_runtime_and_a_dla_plan_gets_its_core(version, open_on):
    device = FakeDevice()
    with open_on(device, version, version_compatible=True, dla_core=1):
        assert ("host code", True) in device.told
        assert ("DLA core", 1) in device.told


BUILT = {"library": "tensorrt", "version": "11.0.0.114", "version_compatible": True}


@pytest.fixture
def no_tensorrt(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)


@pytest.mark.parametrize("library", ["tensorrt_lean", "tensorrt_lean_bindings"])
def test_where_tensorrt_is_absent_the_lean_runtime_opens_a_version_compatible_plan(
    library, open_on, no_tensorrt, monkeypatch
):
    device, frames = FakeDevice(), frames_of(2)
    monkeypatch.setitem(sys.modules, "tensorrt_lean", None)
    with open_on(device, LEAN.replace("tensorrt_lean", library), **BUILT) as session:
        np.testing.assert_array_equal(session.run(frames)[0], expected_maps(frames))
        assert session.device == "Stand-in, tensorrt_lean 11.4.0.106"  # what ran, not what built the plan
    assert ("host code", True) in device.told
    assert device.live == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"version_compatible": False},
            r"cable\.plan must be built with --version-compatible to open in the lean runtime",
        ),
        ({"version_compatible": False, "version": "11.4.0.106"}, "must be built with --version-compatible"),
        ({"weights_sha256": "1" * 64}, "must be built with its weights to open in the lean runtime"),
        ({"version": "11.5.0.1"}, r"opens only in 11\.5\.0\.1 and later on .*; found tensorrt_lean 11\.4.*no newer"),
        ({"version": "8.6.1"}, r"opens only in 8\.6\.1 and later.*; found tensorrt_lean 11\.4\.0\.106 on"),
    ],
)
def test_what_the_lean_runtime_cannot_open_is_one_line(changes, message, open_on, no_tensorrt):
    device = FakeDevice()
    with pytest.raises(UserError, match=message):
        open_on(device, LEAN, **(BUILT | changes))
    assert device.live == device.calls == []


def test_the_lean_runtime_is_named_as_a_cure_where_it_would_open_the_plan(plan, no_tensorrt, monkeypatch):
    for name in ("tensorrt_lean", "tensorrt_lean_bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    artefact = replace(ARTEFACT, **BUILT)
    with pytest.raises(UserError, match=r"cable\.plan needs tensorrt; .*'cflow-edge\[tensorrt-lean\]'"):
        find_library(plan, artefact)
    with pytest.raises(UserError) as caught:
        find_library(plan, replace(artefact, version_compatible=False))
    assert "lean" not in str(caught.value)


def test_tensorrt_itself_is_taken_before_the_lean_runtime(open_on, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt_lean", object())  # which has nothing that a session needs
    with open_on(FakeDevice(), V10_3, version_compatible=True) as session:
        assert session.device == f"Stand-in, {V10_3}"


def test_a_stripped_plan_is_filled_from_the_onnx_of_its_hash(open_on, plan):
    device = FakeDevice()
    stripped = {"weights_sha256": sha256_of(plan.with_suffix(".onnx"))}
    plan.with_suffix(".onnx").rename(plan.with_name("renamed.onnx"))
    plan.with_suffix(".onnx").write_bytes(b"another")
    with open_on(device, **stripped) as session:
        frames = frames_of(2)
        np.testing.assert_array_equal(session.run(frames)[0], expected_maps(frames))
    told = [item for item in device.told if item[0] in ("weights", "refit", "strategy")]
    assert told == [("weights", str(plan.with_name("renamed.onnx"))), ("refit",), ("strategy", None)]


def test_a_stripped_plan_without_its_onnx_or_with_weights_missing(open_on, plan):
    missing = {"weights_sha256": "1" * 64}
    with pytest.raises(UserError, match=r"needs the fp16 ONNX.*no ONNX with sha256 111111111111.*cable\.fp16\.onnx"):
        open_on(FakeDevice(), **missing)
    stripped = {"weights_sha256": sha256_of(plan.with_suffix(".onnx"))}
    for changes, message in (
        ({"refits": False}, r"cable\.onnx must hold the weights of the plan; found no reason given"),
        ({"missing": ["a", "b", "c", "d"]}, r"must hold all weights of the plan; found a, b, c, \.\.\. missing"),
    ):
        device = FakeDevice()
        vars(device).update(changes)
        with pytest.raises(UserError, match=message):
            open_on(device, **stripped)
        assert device.live == device.stack == []


def test_a_run_returns_arrays_that_the_caller_owns(open_on):
    with open_on(FakeDevice()) as session:
        assert (session.input_size, session.max_batch) == (SIZE, MAX_BATCH)
        assert session.device == "Stand-in, tensorrt 10.3.0"
        first, second = frames_of(2), frames_of(2, seed=4)
        maps, scores = session.run(first)
        session.run(second)
        np.testing.assert_array_equal(maps, expected_maps(first))
        np.testing.assert_array_equal(scores, expected_maps(first).max(axis=(1, 2)))
        assert list(session.stage_ms) == ["copy_in", "execute", "copy_out"]


def test_every_batch_size_is_captured_anew(open_on):
    device = FakeDevice()
    with open_on(device) as session:
        for batch in (1, 3, 3, 2, 1):
            frames = frames_of(batch, seed=batch)
            maps, scores = session.run(frames)
            assert (maps.shape, scores.shape) == ((batch, *SIZE), (batch,))
            np.testing.assert_array_equal(maps, expected_maps(frames))
    assert device.calls.count("make graph") == 4  # the warm-up's 1 serves the first run
    assert device.calls.count("launch") == 1 + 5
    assert device.calls.count("make buffer") == 3  # once for all


def test_an_execution_is_timed_without_any_copy(open_on):
    device = FakeDevice()
    with open_on(device) as session:
        before = len(device.calls)
        assert session.execute_ms(2) >= 0 and session.execute_ms(2) >= 0
        made = device.calls[before:]
        assert made.count("launch") == 2 and made.count("make graph") == 1  # the batch of 2 is captured once
        assert not [call for call in made if "copy" in call]
        with pytest.raises(UserError, match=f"takes 1 to {MAX_BATCH} frames; found {MAX_BATCH + 1}"):
            session.execute_ms(MAX_BATCH + 1)
    assert device.live == []


def test_a_part_of_a_network_is_timed_but_judges_nothing(open_on):
    device = FakeDevice()
    taps = {"tap2": (-1, 8, 4, 6), "tap3": (-1, 16, 2, 3)}
    with pytest.raises(UserError, match="must have the tensors that its sidecar promises"):
        open_on(device, outputs=taps)
    with open_on(device, outputs=taps, judges=False) as session:
        assert session.execute_ms() >= 0
        frames = frames_of(2)
        session.execute(frames)
        memory = session._engine.device_memory("frames")
        np.testing.assert_array_equal(memory.data[: frames.nbytes], frames.reshape(-1))
        device.order.clear()
        session.execute(frames_of(2, seed=4))
        assert [what for _, what in device.order if what != "record"] == ["copy in", "execute"]
        np.testing.assert_array_equal(memory.data[: frames.nbytes], frames_of(2, seed=4).reshape(-1))
        with pytest.raises(UserError, match="frames must be uint8"):
            session.execute(frames.astype(np.float32))
        sizes = sorted(len(thing.data) for thing in device.live if thing.kind == "buffer")
        assert sizes == sorted(MAX_BATCH * count for count in (3 * SIZE[0] * SIZE[1], 4 * 8 * 4 * 6, 4 * 16 * 2 * 3))
    assert device.live == device.stack == []


def test_a_plan_tells_its_kernels_and_what_it_took_of_the_device(open_on):
    device = FakeDevice()
    with open_on(device) as session:
        assert session.kernels == device.kernels
        assert session.device_bytes == device.allocated > MAX_BATCH * 3 * SIZE[0] * SIZE[1]
        assert "launch" in device.calls
    device = FakeDevice()
    with open_on(device, cuda_graph=False) as session:
        assert session.kernels is None
        np.testing.assert_array_equal(session.run(frames_of(1))[0], expected_maps(frames_of(1)))
        assert "make graph" not in device.calls and "launch" not in device.calls


def test_the_context_is_current_only_during_a_call_and_everything_goes(open_on):
    device = FakeDevice()
    session = open_on(device)
    assert device.stack == []
    session.run(frames_of(1))
    assert device.stack == []
    kinds = sorted(thing.kind for thing in device.live)
    assert kinds == ["buffer"] * 3 + ["context", "graph"] + ["host"] * 3
    session.close()
    session.close()
    assert device.live == device.stack == []
    with pytest.raises(UserError, match="session must be open; found closed"):
        session.run(frames_of(1))


@pytest.mark.parametrize("step", ["deserialize", "make event", "make host", "make buffer", "execute"])
def test_a_failing_start_gives_everything_back(open_on, step):
    device = FakeDevice(fail=step)
    with pytest.raises(UserError, match=f"{step} failed: out of memory"):
        open_on(device)
    assert device.live == device.stack == []


def test_a_plan_that_does_not_open(open_on, plan):
    plan.write_bytes(b"noise")
    device = FakeDevice()
    with pytest.raises(UserError, match=r"cable\.plan must open; found no reason given"):
        open_on(device)
    assert device.live == device.stack == []


def test_a_failing_run_is_one_line_and_the_session_lives(open_on):
    device = FakeDevice()
    with open_on(device) as session:
        device.fail = "record"
        with pytest.raises(UserError, match=r"Stand-in, tensorrt 10\.3\.0 must run; found record failed"):
            session.run(frames_of(1))
        assert device.stack == []
        device.fail = ""
        assert session.run(frames_of(1))[0].shape == (1, *SIZE)
    assert device.live == []


def test_without_a_capture_it_says_so_once_and_executes_plainly(open_on, capsys):
    device = FakeDevice(fail="capture")
    with open_on(device) as session:
        for batch in (1, 2, 1):
            frames = frames_of(batch)
            np.testing.assert_array_equal(session.run(frames)[0], expected_maps(frames))
    assert capsys.readouterr().err.count("note: executing without a CUDA graph") == 1
    assert "launch" not in device.calls


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((0, *SIZE, 3), np.uint8),
        np.zeros((MAX_BATCH + 1, *SIZE, 3), np.uint8),
        np.zeros((1, *SIZE, 3), np.float32),
        np.zeros((1, SIZE[1], SIZE[0], 3), np.uint8),
        np.zeros((*SIZE, 3), np.uint8),
    ],
)
def test_frames_that_the_engine_does_not_take(open_on, frames):
    with (
        open_on(FakeDevice()) as session,
        pytest.raises(UserError, match=rf"uint8 \(1\.\.3, {SIZE[0]}, {SIZE[1]}, 3\)"),
    ):
        session.run(frames)


def test_a_plan_of_another_size_than_its_sidecar(open_on, monkeypatch):
    monkeypatch.setattr(tensorrt_engine, "MAP_NAME", "map")  # stands for any name, type or size that differs
    device = FakeDevice()
    with pytest.raises(UserError, match=r"sidecar promises: .*map FLOAT.*found .*anomaly_map FLOAT\[B, 16, 24\]"):
        open_on(device)
    assert device.live == device.stack == []


def test_a_plan_with_the_resize_inside_takes_frames_of_the_camera(open_on):
    camera = (3 * SIZE[0], 3 * SIZE[1])
    frames = np.random.default_rng(5).integers(0, 256, (2, *camera, 3), np.uint8)
    device = FakeDevice()
    with open_on(device, step=3, frame_size=camera) as session:
        assert (session.frame_size, session.input_size) == (camera, SIZE)
        maps, _ = session.run(frames)
        np.testing.assert_array_equal(maps, expected_maps(frames[:, ::3, ::3]))
        with pytest.raises(UserError, match=rf"uint8 \(1\.\.3, {camera[0]}, {camera[1]}, 3\)"):
            session.run(frames_of(1))
    assert device.live == device.stack == []
    with pytest.raises(UserError, match=r"frames UINT8\[B, 96, 24, 3\].*found frames UINT8\[B, 48, 72, 3\]"):
        open_on(FakeDevice(), step=3, frame_size=(96, 24))
    with open_on(FakeDevice()) as session:  # a sidecar without the field
        assert session.frame_size == SIZE
