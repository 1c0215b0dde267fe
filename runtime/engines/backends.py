"""Which library judges with an `.onnx` on the CPU; importing this loads none of them, so that `--help` stays light."""

import argparse
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict

from runtime.common.errors import UserError
from runtime.engines.remote import options as server_options
from runtime.engines.remote.options import ServerOptions

if TYPE_CHECKING:
    from runtime.engines.cpu_session import CpuSession
    from runtime.engines.session import CpuPrecision
    from runtime.engines.sidecar import Sidecar

Backend = Literal["auto", "onnxruntime", "openvino"]

BACKENDS: tuple[Backend, ...] = ("auto", "onnxruntime", "openvino")
PRECISIONS: tuple["CpuPrecision", ...] = ("float32", "bfloat16")


def open_cpu_session(
    path: Path,
    threads: int | None,
    sidecar: "Sidecar",
    backend: Backend = "auto",
    precision: "CpuPrecision" = "float32",
    digest: str = "",
) -> "CpuSession":
    """Open an `.onnx` with the library that `choose_backend` names; `threads` None: all cores.

    `digest` is the file's SHA-256; empty: not known yet.
    """
    if choose_backend(backend, precision) == "openvino":
        from runtime.engines.openvino_session import OpenVinoSession

        return OpenVinoSession(path, threads, sidecar, precision, keep=True, digest=digest)
    from runtime.engines.onnxruntime_session import OnnxRuntimeSession

    return OnnxRuntimeSession(path, threads, sidecar)


def choose_backend(backend: Backend, precision: "CpuPrecision") -> Literal["onnxruntime", "openvino"]:
    """Return the library for an `.onnx`: "auto" is OpenVINO where it is installed, else ONNX Runtime.

    OpenVINO was the faster in every precision where both were measured in turn (x86-64 with AVX-512;
    `python -m runtime.report --backend` measures either). Raises `UserError` for values that are not known and for
    bfloat16 without OpenVINO.
    """
    if backend not in BACKENDS:
        raise UserError(f"the backend of an .onnx must be one of {', '.join(BACKENDS)}", repr(backend))
    if precision not in PRECISIONS:
        raise UserError(f"the precision on a CPU must be one of {', '.join(PRECISIONS)}", repr(precision))
    if backend == "auto":
        backend = "openvino" if find_spec("openvino") else "onnxruntime"
    if backend == "onnxruntime" and precision == "bfloat16":
        raise UserError(
            "bfloat16 needs OpenVINO, ONNX Runtime has no such products on a CPU",
            "ONNX Runtime",
            "pip install openvino, or leave bfloat16 out",
        )
    return backend


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add to a command that opens engines how they are run: `load_options` reads what was asked for."""
    parser.add_argument(
        "--backend",
        choices=BACKENDS,
        default="auto",
        help="what runs an .onnx (default: auto, OpenVINO where it is installed, else ONNX Runtime)",
    )
    parser.add_argument(
        "--bf16",
        action="store_true",
        help="bfloat16 products of an .onnx, with OpenVINO on CPUs that have them (default: exact float32)",
    )
    parser.add_argument(
        "--no-cuda-graph", action="store_true", help="launch a .plan's kernels one by one, for a profiler or to compare"
    )
    server_options.add_arguments(parser)


class LoadOptions(TypedDict):
    """Arguments of `runtime.load`."""

    backend: Backend
    precision: "CpuPrecision"
    cuda_graph: bool
    server: ServerOptions


def load_options(arguments: argparse.Namespace) -> LoadOptions:
    """Return what `add_arguments` has parsed as arguments of `runtime.load`."""
    precision: CpuPrecision = "bfloat16" if arguments.bf16 else "float32"
    return {
        "backend": arguments.backend,
        "precision": precision,
        "cuda_graph": not arguments.no_cuda_graph,
        "server": server_options.options_of(arguments),
    }
