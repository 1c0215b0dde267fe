"""The real lean runtime, as far as a machine without a GPU lets it be seen."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from export.trt.build import build_plan
from export.trt.options import BuildOptions
from runtime.engines.sidecar import write_sidecar
from runtime.engines.trt.cuda import device_problem
from runtime.engines.trt.session import TensorRTSession
from tests.support.fake_tensorrt import EVERY, LEAN
from tests.support.gpu_backend import gpu_backend
from tests.support.installed_aside import installed_aside, run_with
from tests.support.small_graphs import MAX_BATCH, frames_of, sidecar_for, small_model

VERSION = LEAN.split()[1]
PACKAGES = tuple(f"tensorrt-lean-cu13-{part}=={VERSION}" for part in ("libs", "bindings"))
without_device = pytest.mark.skipif(device_problem() is None, reason="a CUDA device is here")
pytestmark = pytest.mark.slow

FIND = """
import sys
from pathlib import Path
from runtime.common.errors import UserError
from runtime.engines.sidecar import Artefact
from runtime.engines.trt.libraries import find_library
from runtime.engines.trt.log import library_log
from runtime.engines.trt.plan import check_built_for, create_runtime

sys.modules["tensorrt"] = None
path = Path("cable.plan")


def artefact(version, compatible=True):
    return Artefact("plan", "fp16", "0" * 64, "tensorrt", version, "8.6", version_compatible=compatible)


def open_plan(version, compatible=True):
    try:
        found = find_library(path, artefact(version, compatible))
        check_built_for(path, artefact(version, compatible), found.version, "8.6", found.name)
        print(found.name, found.version)
        create_runtime(found.module, library_log(found.module), artefact(version, compatible))
        print("started")
    except UserError as error:
        print(error)
"""


@pytest.fixture(scope="module")
def lean() -> Path:
    return installed_aside(*PACKAGES)


def test_the_recording_is_what_the_real_binding_has(lean: Path):
    asked = (
        "import json, tensorrt_lean_bindings as t; from tests.support.record_tensorrt_api import surface; "
        "print(json.dumps([t.__version__, surface(t)]))"
    )
    ended = run_with([lean], "-c", asked)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout) == [VERSION, {key: EVERY[LEAN][key] for key in ("enums", "classes")}]


@without_device
def test_without_a_device_the_runtime_is_refused_though_the_binding_returns_one(lean: Path):
    ended = run_with([lean], "-c", f"{FIND}\nopen_plan('11.0.0.114')")
    assert (ended.returncode, ended.stderr) == (0, "")
    found, refused = ended.stdout.splitlines()
    assert found == LEAN
    assert refused.startswith(f"{LEAN} must start; found ") and "nvidia-smi" in refused


def test_plans_that_it_does_not_open_are_refused_before_their_bytes_are_read(lean: Path):
    asked = "open_plan('11.4.0.106', False); open_plan('12.0.0.1'); open_plan('8.6.1')"
    ended = run_with([lean], "-c", f"{FIND}\n{asked}")
    assert (ended.returncode, ended.stderr) == (0, "")
    other, newer, older = ended.stdout.splitlines()
    assert other.startswith("cable.plan must be built with --version-compatible") and f"{LEAN} and no" in other
    assert "opens only in 12.0.0.1 and later" in newer and f"found {LEAN}" in newer
    assert "opens only in 8.6.1 and later" in older and f"found {LEAN}" in older


JUDGE = """
import sys
import numpy as np
from pathlib import Path
from runtime.engines.sidecar import read_sidecar
from runtime.engines.trt.session import TensorRTSession

sys.modules["tensorrt"] = None
path, frames, maps = map(Path, sys.argv[1:])
sidecar = read_sidecar(path)
with TensorRTSession(path, sidecar, sidecar.artefact_of(path)) as session:
    np.save(maps, session.run(np.load(frames))[0])
    print(session.device)
"""


@pytest.mark.gpu
def test_on_a_device_it_judges_as_tensorrt_itself_does(lean: Path, tmp_path: Path):
    """The same plan, whose own kernels run in both: equal to the bit."""
    backend, _ = gpu_backend()
    if backend.builds_without_device:
        pytest.skip("TensorRT-RTX has no version-compatible plans")
    model, plan = tmp_path / "small.onnx", tmp_path / "small.plan"
    onnx.save(small_model("fp16"), model)
    built = build_plan(model, BuildOptions("fp16", MAX_BATCH, version_compatible=True), backend)
    plan.write_bytes(built.data)
    sidecar = replace(sidecar_for(model), artefacts=(built.artefact,))
    write_sidecar(plan, sidecar)
    frames = frames_of(MAX_BATCH)
    np.save(tmp_path / "frames.npy", frames)
    ended = run_with([lean], "-c", JUDGE, str(plan), str(tmp_path / "frames.npy"), str(tmp_path / "maps.npy"))
    assert ended.returncode == 0 and ended.stdout.endswith(f"{LEAN}\n"), ended.stderr
    with TensorRTSession(plan, sidecar, built.artefact) as session:
        np.testing.assert_array_equal(np.load(tmp_path / "maps.npy"), session.run(frames)[0])
