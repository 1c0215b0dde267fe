"""Where a plan opens, and what it needs besides its own bytes: trust, a DLA core, the weights that were left out."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.common.errors import UserError
from runtime.common.files import sha256_of
from runtime.engines.external_data import refuse_external_data
from runtime.engines.sidecar import Artefact, Sidecar, sidecar_path
from runtime.engines.trt.log import make

ACROSS_MAJORS = ((8, 10), (10, 11))  # where a version-compatible plan of one major version opens in another
LEAN = "tensorrt_lean"  # the runtime without a builder, as it is called in records
AMPERE = (8, 0)  # a hardware-compatible plan runs on this compute capability and later ones


@dataclass(frozen=True)
class PlanFile:
    """A plan on the disk: its `path`, the sidecar beside it, and the sidecar's entry for this very file."""

    path: Path
    sidecar: Sidecar
    artefact: Artefact


def check_built_for(path: Path, artefact: Artefact, version: str, capability: str, library: str = "") -> None:
    """Refuse a plan that this library version or GPU does not open, before its bytes are opened.

    `library` is what has that version (empty: the one that built the plan). Raises `UserError` with both values and
    the command that rebuilds.
    """
    if _opens_in(artefact, version) and _runs_on(artefact, capability):
        return
    versions = f"{artefact.version} and later" if artefact.version_compatible else artefact.version
    gpus = f"{artefact.compute_capability} and others from 8.0 on" if artefact.hardware_compatible else ""
    command = f"python -m export.build_engine {sidecar_path(path).stem}.pt"
    lean = f"{command} --version-compatible, on a GPU like this one, by a tensorrt that is no newer"
    raise UserError(
        f"{path.name} was built by {artefact.library} {artefact.version} for compute capability "
        f"{artefact.compute_capability} and opens only " + _where(artefact, versions, gpus),
        f"{library or artefact.library} {version} on compute capability {capability}",
        f"rebuild it with: {lean}" if library == LEAN else f"rebuild it here with: {command}",
    )


def _where(artefact: Artefact, versions: str, gpus: str) -> str:
    if not artefact.version_compatible and not artefact.hardware_compatible:
        return "there"
    return f"in {versions} on {gpus or artefact.compute_capability}"


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", text))


def _opens_in(artefact: Artefact, version: str) -> bool:
    """Whether a library of `version` opens the plan: NVIDIA's rules of version compatibility."""
    if artefact.version == version:
        return True
    built, here = _numbers(artefact.version), _numbers(version)
    if not artefact.version_compatible or here < built:
        return False
    return built[0] == here[0] or (built[0], here[0]) in ACROSS_MAJORS


def _runs_on(artefact: Artefact, capability: str) -> bool:
    if capability in artefact.compute_capability.split("+"):
        return True
    return artefact.hardware_compatible and _numbers(capability) >= AMPERE


def create_runtime(library: Any, log: Any, artefact: Artefact) -> Any:
    """Return the library's `Runtime`, set up for the plan of `artefact`. Raises `UserError` where it does not start.

    A version-compatible plan carries its own runtime as code. It is allowed to run because the plan is the very
    file that the sidecar names by its hash.
    """
    is_lean = not hasattr(library, "Builder")
    what = f"{LEAN} {library.__version__}" if is_lean else f"{artefact.library} {artefact.version}"
    # where the driver is too old the lean binding logs it and returns an object all the same, which must not be used
    runtime = make(library.Runtime, log, what, errors_end_it=is_lean)
    if artefact.version_compatible:
        runtime.engine_host_code_allowed = True
    if artefact.dla_core is not None:
        runtime.DLA_core = artefact.dla_core
    return runtime


def find_weights(path: Path, artefact: Artefact) -> Path:
    """Return the ONNX that the stripped plan at `path` was built from: beside it, under any name, known by its hash.

    Raises `UserError` with the hash where there is none.
    """
    names = [path.with_suffix(".onnx"), sidecar_path(path).with_suffix(f".{artefact.precision}.onnx")]
    for candidate in dict.fromkeys([*names, *sorted(path.parent.glob("*.onnx"))]):
        if candidate.is_file() and sha256_of(candidate) == artefact.weights_sha256:
            return candidate
    raise UserError(
        f"{path.name} was built without its weights and needs the {artefact.precision} ONNX that it was built from",
        f"no ONNX with sha256 {artefact.weights_sha256[:12]} beside it",
        f"copy {names[1].name if artefact.precision != 'fp32' else names[0].name} from where it was built",
    )


def refit(engine: Any, library: Any, log: Any, onnx_path: Path) -> None:
    """Fill a stripped engine with the weights of the ONNX that it was built from.

    Raises `UserError` with the library's reason, or with the weights that it still misses.
    """
    refuse_external_data(onnx_path)
    log.clear()
    refitter = library.Refitter(engine, log)
    parser = library.OnnxParserRefitter(refitter, log)
    if not parser.refit_from_file(str(onnx_path)):
        reason = parser.get_error(0).desc() if parser.num_errors else log.reason()
        raise UserError(f"{onnx_path.name} must hold the weights of the plan", reason, "rebuild both")
    if missing := refitter.get_missing_weights():
        names = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise UserError(f"{onnx_path.name} must hold all weights of the plan", f"{names} missing", "rebuild both")
    if not refitter.refit_cuda_engine():
        raise UserError(f"the plan must take the weights of {onnx_path.name}", log.reason(), "rebuild both")
