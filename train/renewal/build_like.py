"""Building an engine in the way that another one was built, as far as its sidecar tells."""

from pathlib import Path

from export.build_engine import BuildRequest, build_engine
from export.precisions.typed_graph import TypingOptions
from export.trt.compat import Backend, check_options, find_backend
from export.trt.options import BuildOptions
from runtime.common.errors import UserError
from runtime.engines.sidecar import Artefact, Sidecar

RTX = "tensorrt_rtx"  # builds for other devices than this machine's


def backend_like(artefact: Artefact) -> Backend | None:
    """Return the library that built an engine, None for an ONNX. Raises `UserError` where it cannot build here."""
    if artefact.kind == "onnx":
        return None
    if artefact.library not in ("tensorrt", RTX):
        raise UserError("the plan's sidecar must name the library that built it", artefact.library or "none")
    backend = find_backend(artefact.library)  # type: ignore[arg-type]
    check_options(backend, _options(artefact, 1))
    return backend


def build_like(sidecar: Sidecar, artefact: Artefact, model: Path, calibration: Path) -> Sidecar:
    """Build an engine of the checkpoint `model`, beside it, in the way of the one that `artefact` of `sidecar` is.

    `calibration` is a folder of good images, for INT8. Raises `UserError` as `build_engine`.
    """
    typing = TypingOptions(artefact.precision, calibration)  # type: ignore[arg-type]
    out = model.with_suffix(".plan")
    request = BuildRequest(model, out, _options(artefact, sidecar.batch), typing, sidecar.frame_size)
    return build_engine(request, backend_like(artefact))


def _options(artefact: Artefact, batch: int) -> BuildOptions:
    capabilities = artefact.compute_capability.split("+") if artefact.library == RTX else []
    return BuildOptions(
        precision=artefact.precision,  # type: ignore[arg-type]
        max_batch=batch,
        compute_capabilities=tuple(filter(None, capabilities)),
        version_compatible=artefact.version_compatible,
        hardware_compatible=artefact.hardware_compatible,
        strip_weights=bool(artefact.weights_sha256),
        dla_core=artefact.dla_core,
    )
