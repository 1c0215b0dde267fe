"""The real lean runtime, as far as a machine without a GPU lets it be seen."""

import json
from pathlib import Path

import pytest

from runtime.engines.trt.cuda import device_problem
from tests.support.fake_tensorrt import EVERY, LEAN
from tests.support.installed_aside import installed_aside, run_with

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
