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
    STRIP_PLAN             absent       yes           yes           with a GPU
    VERSION_COMPATIBLE     yes          yes           yes           no effect
    AMPERE_PLUS            yes          yes           yes           no effect
    DLA                    by flags     by flags      by types      no effect
    =====================  ===========  ============  ============  ============

TensorRT-RTX keeps names that it no longer obeys, so it is known by what it alone has: the choice of targets.
"""

import ctypes
import importlib
from collections.abc import Collection
from dataclasses import dataclass
from functools import reduce
from typing import Any, Literal

from export.trt.options import BuildOptions
from runtime.common.errors import UserError
from runtime.engines.trt.cuda import compute_capability, device_problem

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
JETSONS = ("8.7", "10.1", "11.0")  # Orin, Thor and its later number: no hardware compatibility there
# which libraries the kernels of a source come from; TensorRT 8 wants its own release of each
TACTIC_LIBRARIES = {
    "CUBLAS": ("libcublas.so.12", "libcublas.so.11"),
    "CUBLAS_LT": ("libcublasLt.so.12", "libcublasLt.so.11"),
    "CUDNN": ("libcudnn.so.8",),
}
# by option of the command: where a version that can do it has which name
NEEDED_NAMES = {
    "--aux-streams": ("IBuilderConfig", "max_aux_streams"),
    "--version-compatible": ("BuilderFlag", "VERSION_COMPATIBLE"),
    "--hardware-compatible": ("HardwareCompatibilityLevel", "AMPERE_PLUS"),
    "--strip-weights": ("BuilderFlag", "STRIP_PLAN"),
    "--refittable": ("BuilderFlag", "REFIT"),
    "--dla": ("IBuilderConfig", "set_device_type"),
}
IGNORED_BY_RTX = {
    "--version-compatible": "its plans open only in the release that built them",
    "--hardware-compatible": "name the GPUs with --target instead",
    "--dla": "it computes on the GPU alone",
}


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


def is_strongly_typed(module: Any, on_dla: bool = False) -> bool:
    """Whether a network takes its types from the graph alone (all versions but 8.x).

    A network for the DLA does so only where there is no other way: before, DLA took its precision from flags.
    """
    possible = hasattr(module.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")
    return possible and not (on_dla and hasattr(module.BuilderFlag, "FP16"))


def network_flag_names(module: Any, on_dla: bool = False) -> tuple[str, ...]:
    """Return the creation flags that a network of explicit batch and types from the graph needs here."""
    wanted = ("STRONGLY_TYPED",) if is_strongly_typed(module, on_dla) else ("EXPLICIT_BATCH",)
    return tuple(name for name in wanted if hasattr(module.NetworkDefinitionCreationFlag, name))


def network_flags(module: Any, on_dla: bool = False) -> int:
    """Return `network_flag_names` as the bits of this version."""
    members = (getattr(module.NetworkDefinitionCreationFlag, name) for name in network_flag_names(module, on_dla))
    return reduce(lambda bits, member: bits | 1 << int(member), members, 0)


def builder_flag_names(module: Any, tensor_types: Collection[str], options: BuildOptions) -> tuple[str, ...]:
    """Return the builder flags to set, given the tensor types that the ONNX holds ("float16", "int8").

    A version without strong typing must be allowed each type and told to obey the types set layer by
    layer. TensorRT-RTX must be told to take its memory from us, or its stream cannot be captured.
    """
    names: list[str] = []
    if not is_strongly_typed(module, options.on_dla):
        names += [flag for kind, flag in PRECISION_FLAGS.items() if kind in tensor_types]
        names += ["OBEY_PRECISION_CONSTRAINTS"] if names else []
    if hasattr(module.BuilderFlag, "REQUIRE_USER_ALLOCATION"):
        names.append("REQUIRE_USER_ALLOCATION")
    if options.version_compatible:
        names.append("VERSION_COMPATIBLE")
    if options.strip_weights:  # refilled with the very same weights, so that no speed is lost to being refittable
        names += ["STRIP_PLAN", "REFIT_IDENTICAL"]
    if options.refittable:
        names.append("REFIT")
    if options.on_dla:
        names.append("GPU_FALLBACK")
    return tuple(names)


def check_options(backend: Backend, options: BuildOptions) -> None:
    """Refuse what this library or version lacks, ignores or would refuse in the middle of a build.

    Raises `UserError` with the option, what is lacking and the cure.
    """
    here = f"{backend.library} {backend.version}"
    asked = _asked(options)
    for option in asked:
        holder, name = NEEDED_NAMES[option]
        if not hasattr(getattr(backend.module, holder, None), name):
            raise UserError(f"{option} needs a library with {holder}.{name}", f"{here} without", "leave it out")
        if has_target_choice(backend.module) and option in IGNORED_BY_RTX:
            raise UserError(f"{option} needs tensorrt", f"{here}: {IGNORED_BY_RTX[option]}", "leave it out")
    if options.strip_weights and not hasattr(backend.module, "OnnxParserRefitter"):
        raise UserError("--strip-weights needs a library with OnnxParserRefitter", f"{here} without", "leave it out")
    if options.replaces_weights and has_target_choice(backend.module) and (problem := device_problem()):
        raise UserError(f"{asked[-1]} needs a CUDA device, even with {here}", problem, "build it on the device")
    if options.precision == "int8" and not is_strongly_typed(backend.module, options.on_dla):
        _check_quantised(options, here)
    if options.hardware_compatible:
        _check_hardware(compute_capability())


def _asked(options: BuildOptions) -> list[str]:
    asked = {
        "--aux-streams": options.aux_streams is not None,
        "--version-compatible": options.version_compatible,
        "--hardware-compatible": options.hardware_compatible,
        "--dla": options.on_dla,
        "--strip-weights": options.strip_weights,
        "--refittable": options.refittable,
    }
    return [option for option, is_asked in asked.items() if is_asked]


def _check_quantised(options: BuildOptions, here: str) -> None:
    """Refuse what Quantize/DequantizeLinear rule out in a version without strong typing."""
    if options.on_dla:
        raise UserError("--dla needs --fp16 here", f"{here}, whose DLA takes no Q/DQ", "use --fp16")
    if options.refittable:
        raise UserError("--refittable needs --fp16 or --fp32 here", f"{here}, which folds INT8 weights", "use --fp16")


def _check_hardware(capability: str) -> None:
    if int(capability.split(".")[0]) < 8 or capability in JETSONS:
        raise UserError(
            "--hardware-compatible needs a GPU from Ampere on that is no Jetson",
            f"compute capability {capability}",
            "leave it out, or build on such a GPU",
        )


def check_dla_core(builder: Any, core: int) -> None:
    """Refuse a DLA core that is not there; whether there is any is the device's secret, not a version's."""
    if core >= builder.num_DLA_cores:
        cores = f"{builder.num_DLA_cores} DLA cores"
        raise UserError(f"--dla {core} needs a device and a TensorRT with that core", cores, "leave it out")


def has_aux_streams(module: Any) -> bool:
    """Whether the builder can be told how many streams may run beside the main one."""
    return hasattr(module.IBuilderConfig, "max_aux_streams")


def has_progress_monitor(module: Any) -> bool:
    """Whether a build can be watched and cancelled."""
    return hasattr(module, "IProgressMonitor")


def has_local_functions(module: Any) -> bool:
    """Whether the ONNX parser takes a model with local functions."""
    return hasattr(module.ParserError, "local_function_stack")


def times_kernels(module: Any) -> bool:
    """Whether the builder times kernels, so that a timing cache saves work (TensorRT-RTX does so on the device)."""
    return not has_target_choice(module)


def usable_tactic_sources(module: Any, wanted: int) -> int:
    """Return the bits of `wanted` without the sources whose library this machine lacks: their kernels cannot be tried.

    TensorRT 8 asks for cuBLAS and cuDNN by default and reports each one that it misses as an error.
    """
    sources = module.TacticSource  # without those names where a version has no such sources
    for name, libraries in TACTIC_LIBRARIES.items():
        if hasattr(sources, name) and not any(_loads(library) for library in libraries):
            wanted &= ~(1 << int(getattr(sources, name)))
    return wanted


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


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
