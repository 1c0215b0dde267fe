"""From a camera frame to a verdict: what runs on the device."""

from pathlib import Path
from typing import TYPE_CHECKING

from runtime.common.interrupts import quiet_start

if TYPE_CHECKING:
    from runtime.detector import Detector
    from runtime.engines.backends import Backend
    from runtime.engines.remote.address import RemoteEngine
    from runtime.engines.remote.options import ServerOptions
    from runtime.engines.session import CpuPrecision

__all__ = ["load"]

quiet_start()


def load(
    path: "str | Path | RemoteEngine",
    *,
    threads: int | None = None,
    threshold: float | None = None,
    backend: "Backend" = "auto",
    precision: "CpuPrecision" = "float32",
    cuda_graph: bool = True,
    server: "ServerOptions | None" = None,
) -> "Detector":
    """Open an engine (`cable.plan` or `cable.onnx`, its `cable.json` beside it); see `runtime.detector.load`.

    Or one on a server: `grpc://HOST:8001/cable`, `http://HOST:8000/cable`.

    >>> with runtime.load("cable.plan") as detector:
    ...     result = detector(frame)  # uint8 (H, W, 3) RGB
    ...     for result in detector.stream(frames):  # many: the next one's copy beside this one's execution
    ...         print(result.verdict, result.image_score, result.latency_ms)
    """
    from runtime.detector import load as load_detector  # here, so that `import runtime` stays light

    return load_detector(
        path,
        threads=threads,
        threshold=threshold,
        backend=backend,
        precision=precision,
        cuda_graph=cuda_graph,
        server=server,
    )
