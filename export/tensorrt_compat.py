"""Which TensorRT is here and what its version wants: the only place of the export side that knows.

Every decision reads the names that the library's Python module has (never a version number, never a
bit: the same name is another bit in another release). What was found, by version:

    =====================  ===========  ============  ============  ============
    name                   8.6          10.x          11.x          RTX 1.x
    =====================  ===========  ============  ============  ============
    EXPLICIT_BATCH         needed       no effect     gone          gone
    STRONGLY_TYPED         absent       wanted        the only way  the only way
    BuilderFlag.FP16/INT8  needed       conflict      gone          gone
    IProgressMonitor       absent       yes           yes           yes
    ComputeCapability      absent       absent        absent        yes
    =====================  ===========  ============  ============  ============
"""

import importlib
from collections.abc import Collection
from dataclasses import dataclass
from functools import reduce
from typing import Any, Literal

from runtime.cuda import compute_capability, device_problem
from runtime.errors import UserError

LibraryName = Literal["tensorrt", "tensorrt_rtx"]

CURES = {
    "tensorrt": "pip install 'cflow-edge[tensorrt]' on the device (a Jetson has it with JetPack), or take tensorrt_rtx",
    "tensorrt_rtx": "pip install 'cflow-edge[rtx]', which builds without a GPU",
    "auto": "pip install 'cflow-edge[rtx]', which builds without a GPU, or 'cflow-edge[tensorrt]' on the device",
}
# what a TensorRT-RTX plan is built for where nothing else is asked; 7.5 has no FP32 matrix products,
# and 8.0 in the same plan makes it larger
DEFAULT_TARGETS = ("8.6", "8.9", "12.0")
PRECISION_FLAGS = {"float16": "FP16", "int8": "INT8"}  # by the tensor types of the ONNX


@dataclass(frozen=True)
class Backend:
    """A TensorRT library: `library` is its name, `module` the imported module, `version` its text ("10.3.0")."""

    library: LibraryName
    module: Any
    version: str

    @property
    def builds_without_device(self) -> bool:
        """Whether the builder compiles for named targets instead of for the GPU it runs on."""
        return has_target_choice(self.module)


def find_backend(name: Literal["auto", "tensorrt", "tensorrt_rtx"] = "auto") -> Backend:
    """Return the library to build with.

    "auto" is `tensorrt` where it imports and a CUDA device is there, else `tensorrt_rtx`, which
    needs no device. Raises `UserError` where what was asked for cannot build here.
    """
    problems: dict[str, str] = {}
    for library in ("tensorrt", "tensorrt_rtx") if name == "auto" else (name,):
        found = _try_import(library)
        if isinstance(found, str):
            problems[library] = found
        elif not found.builds_without_device and (problem := device_problem()):
            problems[library] = f"{problem}, and tensorrt builds only for the GPU that it runs on"
        else:
            return found
    wanted = "tensorrt or tensorrt_rtx" if name == "auto" else name
    reasons = "; ".join(f"{library}: {problem}" for library, problem in problems.items())
    raise UserError(f"{wanted} must be able to build here", reasons, CURES[name])


def _try_import(library: LibraryName) -> Backend | str:
    """Return the library, or why it does not import."""
    try:
        module = importlib.import_module(library)
    except (ImportError, OSError) as error:  # OSError: the bindings are there, the libraries are not
        return str(error)
    return Backend(library, module, str(module.__version__))


def is_strongly_typed(module: Any) -> bool:
    """Whether a network takes its types from the graph alone (all versions but 8.x)."""
    return hasattr(module.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")


def network_flag_names(module: Any) -> tuple[str, ...]:
    """Return the creation flags that a network of explicit batch and types from the graph needs here."""
    wanted = ("STRONGLY_TYPED",) if is_strongly_typed(module) else ("EXPLICIT_BATCH",)
    return tuple(name for name in wanted if hasattr(module.NetworkDefinitionCreationFlag, name))


def network_flags(module: Any) -> int:
    """Return `network_flag_names` as the bits of this version."""
    members = (getattr(module.NetworkDefinitionCreationFlag, name) for name in network_flag_names(module))
    return reduce(lambda bits, member: bits | 1 << int(member), members, 0)


def builder_flag_names(module: Any, tensor_types: Collection[str]) -> tuple[str, ...]:
    """Return the builder flags to set, given the tensor types that the ONNX holds ("float16", "int8").

    A version without strong typing must be allowed each type and told to obey the types set layer by
    layer. TensorRT-RTX must be told to take its memory from us, or its stream cannot be captured.
    """
    names: list[str] = []
    if not is_strongly_typed(module):
        names += [flag for kind, flag in PRECISION_FLAGS.items() if kind in tensor_types]
        names += ["OBEY_PRECISION_CONSTRAINTS"] if names else []
    if hasattr(module.BuilderFlag, "REQUIRE_USER_ALLOCATION"):
        names.append("REQUIRE_USER_ALLOCATION")
    return tuple(names)


def has_progress_monitor(module: Any) -> bool:
    """Whether a build can be watched and cancelled."""
    return hasattr(module, "IProgressMonitor")


def has_local_functions(module: Any) -> bool:
    """Whether the ONNX parser takes a model with local functions."""
    return hasattr(module.ParserError, "local_function_stack")


def times_kernels(module: Any) -> bool:
    """Whether the builder times kernels, so that a timing cache saves work (TensorRT-RTX does so on the device)."""
    return not has_target_choice(module)


def has_target_choice(module: Any) -> bool:
    """Whether the builder compiles for named compute capabilities (TensorRT-RTX)."""
    return hasattr(module, "ComputeCapability")


def target_names(module: Any) -> dict[str, str]:
    """Return {"8.6": "SM86", ...}, the targets that the builder can name; empty where it cannot."""
    if not has_target_choice(module):
        return {}
    names = (name for name in module.ComputeCapability.__members__ if name.startswith("SM"))
    return {f"{name[2:-1]}.{name[-1]}": name for name in names}


def choose_targets(backend: Backend, asked: tuple[str, ...]) -> tuple[str, ...]:
    """Return the compute capabilities that a plan is built for; `asked` empty leaves it to the library.

    Raises `UserError` for a target that the library does not build for: one that it cannot name, or,
    with `tensorrt`, any but the device's own.
    """
    if backend.builds_without_device:
        known = tuple(target_names(backend.module))
        chosen = tuple(dict.fromkeys(asked or (target for target in DEFAULT_TARGETS if target in known)))
    else:
        known = (compute_capability(),)
        chosen = asked or known
    unknown = [target for target in chosen if target not in known]
    if unknown:
        raise UserError(
            f"{backend.library} {backend.version} builds for compute capability {', '.join(known)}",
            ", ".join(unknown),
            "choose among those, or build on the device itself",
        )
    return chosen
