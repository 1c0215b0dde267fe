"""Engines to a model repository for a Triton server: `cflow triton models/ cable.plan plug.onnx`.

Each becomes a model of its own with `config.pbtxt`: frames in, map and score out, a warm-up request, and the sidecar
with its hashes as parameters, so that a line needs nothing but the address (`--engine grpc://server:8001/cable`).
An engine that is there already is a version of it that stays; another one becomes the next version.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from export.serving.config import BACKENDS, Backend, Options
from export.serving.repository import Model, Written, write_models
from runtime.common.argument_types import count, output_folder, whole
from runtime.common.errors import UserError, run_command
from runtime.common.program import program_name
from runtime.engines.backends import BACKENDS as LIBRARIES
from runtime.engines.cpu_session import MAX_BATCH
from runtime.engines.external_data import refuse_external_data
from runtime.engines.sidecar import Artefact, read_sidecar, sidecar_path

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")  # what stands in an address as it is
DEFAULT: dict[str, Backend] = {".plan": "tensorrt", ".onnx": "onnxruntime"}


def build_parser() -> argparse.ArgumentParser:
    """Return the command line of `export.triton`."""
    parser = argparse.ArgumentParser(prog=program_name("python -m export.triton"), description=__doc__)
    add = parser.add_argument
    add("repository", type=output_folder, metavar="DIR", help="the model repository; made where there is none")
    add("engine", type=Path, nargs="+", metavar="FILE", help="a .plan or .onnx with its .json beside it, each a model")
    add("--name", metavar="NAME", help="the model's name, of a single engine (default: that of its file)")
    add(
        "--backend",
        choices=BACKENDS,
        help="what runs it in the server (default: tensorrt for a .plan, onnxruntime for an .onnx)",
    )
    add("--version", type=count, metavar="N", help="the version to write (default: the next one)")
    add("--loaded", type=count, default=2, metavar="N", help="newest versions that the server loads (default: 2)")
    add("--batch", type=count, metavar="N", help="most frames of one execution (default: the engine's own)")
    add("--delay-us", type=whole, default=0, metavar="N", help="microseconds to wait for more frames (default: 0)")
    add("--instances", type=count, default=1, metavar="N", help="executions side by side (default: 1)")
    add(
        "--library",
        choices=LIBRARIES,
        default="auto",
        help="with --backend python: what runs an .onnx (default: auto, as runtime.infer --backend)",
    )
    add("--threads", type=count, metavar="N", help="with --backend python: CPU threads (default: all cores)")
    add(
        "--python-path",
        action="append",
        metavar="DIR",
        help="with --backend python: a folder with packages, as the server sees it; may be given several times",
    )
    add("--numpy-2", action="store_true", help="with --backend python: the server is known to take NumPy 2")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Write the models and say what became of each."""
    args = build_parser().parse_args(argv)
    models = [_model(args, path) for path in args.engine]
    names = [model.name for model in models]
    if twice := next((name for i, name in enumerate(names) if name in names[:i]), None):
        raise UserError(
            "each model must have a name of its own", f"{twice!r} twice", "write them one by one, with --name"
        )
    for written in write_models(args.repository, models):
        print(_line(args.repository, written))


def _line(repository: Path, written: Written) -> str:
    state = "written" if written.new else "was there"
    against = (
        "" if written.checked else ", its configuration not held against Triton's schema (pip install tritonclient)"
    )
    return f"{repository / written.name}: version {written.number} {state}{against}"


def _model(args: argparse.Namespace, path: Path) -> Model:
    """Return what the command line says of one engine. Raises `UserError` for what no server could run so."""
    if path.suffix not in DEFAULT or not path.is_file():
        found = "no such file" if path.suffix in DEFAULT else path.name
        raise UserError(f"{path} must be a .plan or .onnx", found, "build one with export.build_engine")
    name = args.name or sidecar_path(path).stem
    if args.name and len(args.engine) > 1:
        raise UserError("--name is for one engine", f"{len(args.engine)} of them", "write them one by one")
    if not NAME.fullmatch(name):
        raise UserError("a model's name must be letters, digits and . _ -", repr(name), "choose one with --name")
    sidecar = read_sidecar(path)
    artefact = sidecar.artefact_of(path)
    backend: Backend = args.backend or DEFAULT[path.suffix]
    _check_backend(path, artefact, backend)
    most = sidecar.batch if artefact.kind == "plan" else MAX_BATCH
    batch = sidecar.batch if args.batch is None else args.batch
    if batch > most:
        raise UserError(f"--batch of {path.name} must be at most {most}", str(batch), "build it with --batch")
    python_path = tuple(args.python_path or ())
    if wrong := [folder for folder in python_path if ":" in folder]:
        raise UserError("--python-path must be one folder", wrong[0], "give the option several times")
    if backend != "python" and (python_path or args.threads or args.numpy_2 or args.library != "auto"):
        raise UserError(
            "--library, --threads, --python-path and --numpy-2 are for --backend python", f"--backend {backend}"
        )
    options = Options(
        backend,
        batch,
        args.instances,
        args.loaded,
        args.delay_us,
        args.library,
        args.threads,
        python_path,
        args.numpy_2,
    )
    return Model(name, path, options, args.version)


def _check_backend(path: Path, artefact: Artefact, backend: Backend) -> None:
    """Raise `UserError` for an engine that the backend cannot open."""
    if artefact.kind == "onnx":
        if backend == "tensorrt":
            raise UserError("--backend tensorrt needs a .plan", path.name, "leave --backend out, or build a plan")
        refuse_external_data(path)
        return
    if backend in ("onnxruntime", "openvino"):
        raise UserError(f"--backend {backend} needs an .onnx", path.name, "leave --backend out")
    if backend == "python":
        return
    if artefact.library == "tensorrt_rtx":
        cure = "use --backend python, or build it with TensorRT"
        raise UserError("Triton's TensorRT backend opens plans of TensorRT", "one of TensorRT-RTX", cure)
    if artefact.weights_sha256:
        raise UserError(
            "Triton's TensorRT backend opens plans with their weights", "one without", "use --backend python"
        )


def command() -> int:
    """Run as a console script and return the exit status."""
    return run_command(main)


if __name__ == "__main__":
    sys.exit(command())
