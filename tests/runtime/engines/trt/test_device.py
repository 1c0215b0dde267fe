"""Sessions on a real device, with the small graph in each precision: `pytest -m gpu` where there is one."""

import numpy as np
import onnx
import pytest

from export.trt.build import build_plan
from export.trt.options import BuildOptions
from runtime.engines.onnxruntime_session import OnnxRuntimeSession
from runtime.engines.trt.session import TensorRTSession
from tests.support.gpu_backend import gpu_backend
from tests.support.small_graphs import MAX_BATCH, frames_of, sidecar_for, small_maps, small_model

# by precision: the plan against ONNX Runtime on the same ONNX, in units of a map that lies in 0..16.
# fp32: another order of summation, TF32 is off. fp16: 2^-11 of each input and weight of two layers. int8: the
# same grid, but an FP32 rounding can move an activation by one step of 8/127.
TOLERANCE = {"fp32": 1e-4, "fp16": 0.05, "int8": 0.3}


@pytest.fixture(scope="module", params=sorted(TOLERANCE))
def on_device(request, tmp_path_factory):
    """Build a plan of each precision for this device; return (plan, sidecar, artefact, ONNX, precision)."""
    backend, targets = gpu_backend()
    onnx_path = tmp_path_factory.mktemp("device") / "small.onnx"
    onnx.save(small_model(request.param), onnx_path)
    built = build_plan(onnx_path, BuildOptions(request.param, MAX_BATCH, compute_capabilities=targets), backend)
    plan_path = onnx_path.with_suffix(".plan")
    plan_path.write_bytes(built.data)
    return plan_path, sidecar_for(onnx_path), built.artefact, onnx_path, request.param


# by precision: the map in ONNX Runtime against float64's of FP32 weights, in the same units: 4e-6, 0.0019 and 0.11
# were measured. A plan may be as far from ONNX Runtime as `TOLERANCE` says.
FLOAT64_TOLERANCE = {"fp32": 2e-5, "fp16": 0.006, "int8": 0.3}


@pytest.mark.parametrize("precision", sorted(FLOAT64_TOLERANCE))
def test_the_small_graphs_are_float64_s_in_onnx_runtime(precision, tmp_path):
    path = tmp_path / "small.onnx"
    onnx.save(small_model(precision), path)
    frames = frames_of(2)
    with OnnxRuntimeSession(path, 1, sidecar_for(path)) as session:
        largest = np.abs(session.run(frames)[0] - small_maps(frames)).max()
    assert largest < FLOAT64_TOLERANCE[precision]
    assert precision == "fp32" or largest > FLOAT64_TOLERANCE["fp32"]  # of that precision indeed


@pytest.mark.gpu
def test_parity_with_float64(on_device, capsys):
    plan_path, sidecar, artefact, _, precision = on_device
    frames = frames_of(MAX_BATCH)
    with TensorRTSession(plan_path, sidecar, artefact) as session:
        difference = np.abs(session.run(frames)[0] - small_maps(frames))
    with capsys.disabled():
        rms = np.sqrt((difference**2).mean())
        print(
            f"\n{precision}: largest {difference.max():.2e}, rms {rms:.2e} of a map in 0..16, against float64", end=""
        )
    assert difference.max() < FLOAT64_TOLERANCE[precision] + TOLERANCE[precision]


@pytest.mark.gpu
def test_parity_with_onnx_runtime(on_device):
    plan_path, sidecar, artefact, onnx_path, precision = on_device
    with (
        TensorRTSession(plan_path, sidecar, artefact) as session,
        OnnxRuntimeSession(onnx_path, 1, sidecar) as reference,
    ):
        for batch in (1, MAX_BATCH, 2):
            frames = frames_of(batch, seed=batch)
            for found, expected in zip(session.run(frames), reference.run(frames), strict=True):
                np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE[precision])
        assert all(value >= 0 for value in session.stage_ms.values())


@pytest.mark.gpu
@pytest.mark.parametrize("options", [{"strip_weights": True}, {"version_compatible": True}, {"aux_streams": 2}])
def test_a_plan_of_another_kind_judges_alike(on_device, options, tmp_path):
    _, _, _, onnx_path, precision = on_device
    backend, targets = gpu_backend()
    if backend.builds_without_device and "version_compatible" in options:
        pytest.skip("TensorRT-RTX has no version-compatible plans")
    asked = BuildOptions(precision, MAX_BATCH, compute_capabilities=targets, **options)
    copied = tmp_path / onnx_path.name
    copied.write_bytes(onnx_path.read_bytes())
    built = build_plan(copied, asked, backend)
    copied.with_suffix(".plan").write_bytes(built.data)
    sidecar = sidecar_for(copied)
    with (
        TensorRTSession(copied.with_suffix(".plan"), sidecar, built.artefact) as session,
        OnnxRuntimeSession(copied, 1, sidecar) as reference,
    ):
        frames = frames_of(MAX_BATCH)
        for found, expected in zip(session.run(frames), reference.run(frames), strict=True):
            np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE[precision])


@pytest.mark.gpu
def test_bits_do_not_depend_on_what_ran_before(on_device):
    plan_path, sidecar, artefact, *_ = on_device
    frame = frames_of(1)
    with TensorRTSession(plan_path, sidecar, artefact) as session:
        first = session.run(frame)
        for batch in (1, MAX_BATCH, 2):
            session.run(frames_of(batch, seed=10 + batch))
        again = session.run(frame)
    with TensorRTSession(plan_path, sidecar, artefact) as session:
        reopened = session.run(frame)
    for result in (again, reopened):
        for found, expected in zip(result, first, strict=True):
            np.testing.assert_array_equal(found, expected)


@pytest.mark.gpu
def test_the_work_is_captured_in_a_graph(on_device, capsys):
    plan_path, sidecar, artefact, *_ = on_device
    with TensorRTSession(plan_path, sidecar, artefact) as session:
        session.run(frames_of(1))
    assert "without a CUDA graph" not in capsys.readouterr().err


@pytest.mark.gpu
def test_opening_and_closing_many_times_keeps_no_memory(on_device):
    plan_path, sidecar, artefact, *_ = on_device
    driver = pytest.importorskip("pycuda.driver", reason="pycuda is not installed")
    driver.init()
    free = []
    for _ in range(6):
        with TensorRTSession(plan_path, sidecar, artefact) as session:
            session.run(frames_of(MAX_BATCH))
        context = driver.Device(0).make_context()
        free.append(driver.mem_get_info()[0])
        context.detach()
    # the first rounds load libraries and modules that stay; 1 MiB is less than what one session holds
    assert abs(free[-1] - free[2]) < 1 << 20


@pytest.mark.gpu
def test_two_sessions_do_not_disturb_each_other(on_device):
    plan_path, sidecar, artefact, *_ = on_device
    frame = frames_of(1)
    with TensorRTSession(plan_path, sidecar, artefact) as first:
        expected = first.run(frame)
        with TensorRTSession(plan_path, sidecar, artefact) as second:
            second.run(frames_of(1, seed=5))
            np.testing.assert_array_equal(first.run(frame)[0], expected[0])
        np.testing.assert_array_equal(first.run(frame)[0], expected[0])
