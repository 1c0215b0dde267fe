"""Which TensorRT of this machine opens a plan: the library that built it, or the lean runtime where that is absent.

The lean runtime (`pip install 'cflow-edge[tensorrt-lean]'`) has no builder and a tenth of the size, and opens
version-compatible plans only.
"""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from runtime.common.errors import UserError
from runtime.engines.sidecar import Artefact, sidecar_path
from runtime.engines.trt import cuda
from runtime.engines.trt.plan import LEAN

INSTALL = {"tensorrt": "pip install 'cflow-edge[tensorrt]'", "tensorrt_rtx": "pip install 'cflow-edge[rtx]' pycuda"}
LEAN_MODULES = (LEAN, "tensorrt_lean_bindings")  # of NVIDIA's archive and Jetsons, of the wheels
INSTALL_LEAN = "pip install 'cflow-edge[tensorrt-lean]'"


@dataclass(frozen=True)
class Library:
    """An imported TensorRT: `name` is "tensorrt", "tensorrt_rtx" or "tensorrt_lean", `version` its text ("11.4.0")."""

    name: str
    module: Any
    version: str


def cpu_alternative(path: Path) -> str:
    """Return the cure for a machine that cannot run the plan at `path`: the `.onnx` beside it, or how to get one."""
    for onnx_path in (path.with_suffix(".onnx"), sidecar_path(path).with_suffix(".onnx")):
        if onnx_path.is_file():
            return f"use --engine {onnx_path.name}, which runs on the CPU"
    return f"copy {sidecar_path(path).stem}.onnx beside it and use --engine with that, which runs on the CPU"


def import_libraries(path: Path, artefact: Artefact) -> tuple[Any, Library]:
    """Return pycuda's driver module and the TensorRT for the plan at `path`, whose sidecar entry is `artefact`.

    Raises `UserError` for what is missing here.
    """
    if artefact.library not in INSTALL:
        raise UserError(f"{path.name} must be of tensorrt or tensorrt_rtx", repr(artefact.library), "rebuild it")
    if problem := cuda.device_problem():
        raise UserError(f"{path.name} needs a CUDA device", problem, cpu_alternative(path))
    driver = _import("pycuda.driver", path, "pip install pycuda")
    driver.init()
    return driver, find_library(path, artefact)


def find_library(path: Path, artefact: Artefact) -> Library:
    """Return the library that built the plan, or where that is absent the lean runtime, if the plan opens in it.

    Raises `UserError` where neither is here, or for a plan that the lean runtime cannot open. Whether the versions fit
    is `check_built_for`'s to say.
    """
    if artefact.library != "tensorrt" or _is_here("tensorrt"):
        return _library(artefact.library, _import(artefact.library, path, INSTALL[artefact.library]))
    found = next(filter(_is_here, LEAN_MODULES), None)
    if found is None:
        cure = INSTALL["tensorrt"] + (f", {INSTALL_LEAN}" if artefact.version_compatible else "")
        _import("tensorrt", path, cure)
        raise AssertionError("a module that was not found was imported")
    library = _library(LEAN, _import(found, path, INSTALL_LEAN))
    check_lean(path, artefact, library)
    return library


def check_lean(path: Path, artefact: Artefact, library: Library) -> None:
    """Refuse a plan that no lean runtime opens. Raises `UserError` with what it lacks and the command that rebuilds."""
    lacks: Sequence[str] = [
        *(["with --version-compatible"] if not artefact.version_compatible else []),
        *(["with its weights"] if artefact.weights_sha256 else []),
    ]
    if lacks:
        raise UserError(
            f"{path.name} must be built {' and '.join(lacks)} to open in the lean runtime",
            f"{library.name} {library.version} and no tensorrt",
            f"python -m export.build_engine {sidecar_path(path).stem}.pt --version-compatible, "
            f"or here {INSTALL['tensorrt']}",
        )


def _is_here(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ValueError:  # a module without a specification
        return True


def _library(name: str, module: Any) -> Library:
    return Library(name, module, str(module.__version__))


def _import(name: str, path: Path, cure: str) -> Any:
    try:
        return importlib.import_module(name)
    except (ImportError, OSError) as error:  # OSError: the bindings are there, the libraries are not
        raise UserError(f"{path.name} needs {name}", str(error), f"{cure}, or {cpu_alternative(path)}") from None
