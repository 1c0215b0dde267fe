"""What OpenVINO has beside ONNX Runtime: a choice of precision, a graph of fixed shape, and telemetry to keep quiet."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

import runtime
from runtime.common.errors import UserError, run_command
from runtime.common.files import sha256_of
from runtime.engines import backends
from runtime.engines.backends import choose_backend
from runtime.engines.openvino_session import OpenVinoSession, check_bfloat16, openvino_core
from runtime.engines.sidecar import Artefact, read_sidecar, write_sidecar
from runtime.infer import main as infer
from runtime.report.main import main as report
from tests.support.export_fixtures import exported, small_config
from tests.support.paths import ROOT
from tests.support.tiny_engine import write_tiny_engine

CAPABILITIES = openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
needs_bfloat16 = pytest.mark.skipif("BF16" not in CAPABILITIES, reason="this CPU has no bfloat16 products")


@pytest.fixture
def small_flow(tmp_path: Path) -> Path:
    detector = exported(small_config())
    path = tmp_path / "cable.onnx"
    onnx.save(detector.fused, path)
    write_sidecar(path, replace(detector.info.sidecar, artefacts=(Artefact("onnx", "fp32", sha256_of(path)),)))
    return path


@needs_bfloat16
def test_bfloat16_is_a_choice_that_is_named_and_rounds(small_flow: Path):
    frames = exported(small_config()).frames
    with OpenVinoSession(small_flow) as exact, OpenVinoSession(small_flow, precision="bfloat16") as rounded:
        assert rounded.device == f"{exact.device}, bfloat16"
        errors = np.abs(rounded.run(frames)[0] - exact.run(frames)[0])
        rounded.run(frames[:1])
    # two taps: a map in 0..2; 8 bits of mantissa leave some hundredths, float32 would leave some millionths
    assert 1e-4 < errors.max() < 0.5 and errors.mean() < 0.02


def test_bfloat16_is_refused_where_the_cpu_has_none():
    check_bfloat16(["BF16", "FP32"], "a CPU")
    with pytest.raises(UserError, match=r"bfloat16 needs a CPU.*found An Old One with FP32, INT8"):
        check_bfloat16(["FP32", "INT8"], "An Old One  ")


@pytest.mark.skipif("BF16" in CAPABILITIES, reason="this CPU has bfloat16 products")
def test_bfloat16_is_refused_on_this_cpu(tmp_path: Path):
    with pytest.raises(UserError, match="bfloat16 needs a CPU"):
        OpenVinoSession(write_tiny_engine(tmp_path), precision="bfloat16")


def test_one_frame_and_many_are_two_compiled_graphs_whatever_the_number(tmp_path: Path):
    with OpenVinoSession(write_tiny_engine(tmp_path)) as session:
        assert not session._requests
        for count in (3, 1, 5):
            frames = np.full((count, 32, 48, 3), count, np.uint8)
            np.testing.assert_allclose(session.run(frames)[1], np.full(count, count / 85), rtol=1e-6)  # 3 v / 255
        assert set(session._requests) == {True, False}
        shapes = {
            single: request.get_compiled_model().input().get_partial_shape()
            for single, request in session._requests.items()
        }
        assert shapes[True].is_static and shapes[False].is_dynamic


def test_importing_openvino_tells_nobody(tmp_path: Path):
    program = """
import sys
from runtime.engines.openvino_session import import_openvino, openvino_core
from tests.support.paths import ROOT
import_openvino(); import_openvino().Core()
sys.exit(any(name.startswith("openvino_telemetry") for name in sys.modules))
"""
    home = tmp_path / "home"
    home.mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "CI"} | {"HOME": str(home)}
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, check=True, timeout=60)
    assert list(home.iterdir()) == []  # its telemetry keeps an identifier of the machine there


def test_auto_is_openvino_where_it_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    engine = write_tiny_engine(tmp_path)
    with runtime.load(engine) as detector:
        assert detector.session.device.startswith("OpenVINO")
    with runtime.load(engine, backend="onnxruntime") as detector:
        assert detector.session.device.startswith("ONNX Runtime")
    monkeypatch.setattr(backends, "find_spec", lambda name: None)
    assert choose_backend("auto", "float32") == "onnxruntime"
    with pytest.raises(UserError, match="bfloat16 needs OpenVINO"):
        choose_backend("auto", "bfloat16")


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"backend": "tensorflow"}, "must be one of auto, onnxruntime, openvino, onnxruntime-rtx; found 'tensorflow'"),
        ({"precision": "float16"}, "must be one of float32, bfloat16; found 'float16'"),
        ({"backend": "onnxruntime", "precision": "bfloat16"}, "bfloat16 needs OpenVINO"),
    ],
)
def test_choices_that_are_none_are_refused(tmp_path: Path, choice: dict[str, str], expected: str):
    with pytest.raises(UserError, match=expected):
        runtime.load(write_tiny_engine(tmp_path), **choice)


@pytest.mark.parametrize("choice", [{"backend": "openvino"}, {"precision": "bfloat16"}])
def test_a_plan_has_no_choice_of_cpu_library(tmp_path: Path, choice: dict[str, str]):
    engine = write_tiny_engine(tmp_path)
    plan = engine.rename(engine.with_suffix(".plan"))
    sidecar = read_sidecar(plan)
    write_sidecar(plan, replace(sidecar, artefacts=(replace(sidecar.artefacts[0], kind="plan"),)))
    with pytest.raises(UserError, match="is a plan: TensorRT runs it"):
        runtime.load(plan, **choice)


def test_the_commands_take_the_choice(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    engine = write_tiny_engine(tmp_path)
    image = tmp_path / "frame.png"
    Image.new("RGB", (48, 32), (90, 90, 90)).save(image)
    for backend, name in (("openvino", "OpenVINO"), ("onnxruntime", "ONNX Runtime")):
        assert run_command(infer, ["--engine", str(engine), "--source", str(image), "--backend", backend]) == 0
        assert name in capsys.readouterr().out
        assert run_command(report, [str(engine), "--runs", "1", "--seconds", "1", "--backend", backend]) == 0
        assert f"tiny.onnx  {name}" in capsys.readouterr().out
    arguments = ["--backend", "onnxruntime", "--bf16"]
    assert run_command(infer, ["--engine", str(engine), "--source", str(image), *arguments]) == 2
    with pytest.raises(UserError, match="bfloat16 needs OpenVINO"):
        choose_backend("onnxruntime", "bfloat16")
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1 and "bfloat16 needs OpenVINO" in errors[0]


SIGNALS_AFTER_TWO_SESSIONS = """
import faulthandler, os, signal, sys
faulthandler.enable()  # a stack for signals that is there before OpenVINO's
from runtime.engines.openvino_session import OpenVinoSession
first, second = OpenVinoSession(sys.argv[1]), OpenVinoSession(sys.argv[1])
first.close()
second.close()
del first, second
signal.signal(signal.SIGTERM, lambda *_: print("told"))
os.kill(os.getpid(), signal.SIGTERM)
"""


def test_a_signal_after_two_sessions_is_survived(small_flow: Path):
    run = subprocess.run(
        [sys.executable, "-c", SIGNALS_AFTER_TWO_SESSIONS, str(small_flow)], capture_output=True, text=True, timeout=120
    )
    assert (run.returncode, run.stdout) == (0, "told\n"), run.stderr
