"""A checkpoint or ONNX to a TensorRT plan: export, surgery, precision, build, each where it is missing.

    python -m export.build_engine --fp16        # the one model in this folder
    python -m export.build_engine cable.pt --int8 --calibration-data good_images/

Writes `cable.plan`, its sidecar `cable.json`, the fused `cable.onnx` that any ONNX Runtime can judge with,
and the typed ONNX that the plan was built from.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from export.calibration_data import DEFAULT_FOLDER
from export.find_model import find_model
from export.frame_size import parse_frame_size, resize_file_inside
from export.fuse import LAYOUT_HELP, TILES_AT_ONCE_HELP, fuse_file
from export.graph.onnx_files import foreign_graph, get_info, load_model, save_model
from export.graph.tiled_frame import put_into_frame, tile_network
from export.kept_thresholds import keep_thresholds
from export.passes import LAYOUTS, Layout
from export.precisions.golden import measured
from export.precisions.parity import BUDGETS, Budget
from export.precisions.ranges import METHODS
from export.precisions.typed_graph import TypingOptions, type_graph
from export.staging import StagedEngine, staged_engine
from export.to_onnx import export_checkpoint
from export.trt.build import build_plan
from export.trt.compat import Backend, check_options, find_backend
from export.trt.options import BuildOptions, add_plan_arguments, plan_options
from export.trt.precision import Precision
from runtime.common.argument_types import count, output_file
from runtime.common.errors import UserError, run_command
from runtime.common.files import printable, sha256_of, write_bytes
from runtime.common.program import program_name
from runtime.engines.sidecar import Artefact, Sidecar, sidecar_path


@dataclass(frozen=True)
class BuildRequest:
    """What to build from `model`; `out` is the plan's path, its stem names everything written."""

    model: Path
    out: Path
    build: BuildOptions
    typing: TypingOptions
    frame_size: tuple[int, int] | None = None  # (height, width) of the camera's frames; None: the input size
    layout: Layout = "convolution"
    tiles_at_once: int = 1  # of a tiled detector: how many tiles go through the network together

    def beside(self, suffix: str) -> Path:
        """Return the path of another file of the same engine."""
        return sidecar_path(self.out).with_suffix(suffix)


def build_engine(options: BuildRequest, backend: Backend | None) -> Sidecar:
    """Do what is missing between the model and the plan, and return the sidecar that was written.

    `backend` is None where only the ONNX files are wanted. Until all of it is made an engine that stands stays as it
    is. Raises `UserError` for anything a user can mend.
    """
    with staged_engine(options.out) as staged, foreign_graph(options.model):
        return _build(options, backend, staged)


def _build(options: BuildRequest, backend: Backend | None, staged: StagedEngine) -> Sidecar:
    fused_path = staged.aside(options.beside(".onnx"))
    unfused = _export_and_fuse(options, fused_path, staged)
    model = tile_network(load_model(fused_path))
    info = get_info(model, fused_path.name)
    typed = type_graph(model, options.typing, _say)
    precision, typed_path = options.build.precision, fused_path
    if precision != "fp32":
        typed_path = staged.aside(options.beside(f".{precision}.onnx"))
        save_model(put_into_frame(typed.model, options.tiles_at_once), typed_path)
    size = info.sidecar.input_size
    frame_size = None if options.frame_size == size else options.frame_size
    if frame_size is not None:  # last: ranges and parity are measured on images resized as in training
        for path in dict.fromkeys((fused_path, typed_path)):
            _say(resize_file_inside(path, frame_size, path))
    artefacts = [_artefact(path, "fp32") for path in (unfused, fused_path) if path.exists()]
    if precision != "fp32":
        artefacts.append(_artefact(typed_path, precision))
    if backend is not None:
        _say(f"building {options.out.name} with {backend.library} {backend.version}")
        plan = build_plan(typed_path, options.build, backend)
        write_bytes(staged.aside(options.out), plan.data)
        artefacts.append(plan.artefact)
        _say(plan.table())
    sidecar = replace(
        info.sidecar,
        name=printable(sidecar_path(options.out).stem),
        batch=options.build.max_batch,
        frame_size=frame_size,
        calibration_sha256=typed.calibration_sha256,
        parity={precision: typed.parity} if typed.parity else {},
        artefacts=tuple(artefacts),
        golden=measured(info.sidecar.golden, {"fp32": fused_path, precision: typed_path}, frame_size or size),
    )
    last = _said_at_last_build(options.beside(".onnx"))
    return staged.put_in_place(lambda before: keep_thresholds(sidecar, before, last, _say))


def _say(line: str) -> None:
    print(line, flush=True)


def _export_and_fuse(options: BuildRequest, fused_path: Path, staged: StagedEngine) -> Path:
    """Write `fused_path` anew from the model and return where the unfused graph stands."""
    source = options.model
    unfused = sidecar_path(source).with_suffix(".unfused.onnx")
    if source.suffix == ".pt":
        if _is_export_of(unfused, source):
            _say(f"{unfused.name} is up to date")
        else:
            _say(f"exporting {source.name}")
            unfused = staged.aside(unfused)
            export_checkpoint(source, unfused)
        source = unfused
    _say(f"fusing {source.name}")
    _say(fuse_file(source, fused_path, options.layout, options.tiles_at_once))
    return unfused


def _is_export_of(unfused: Path, checkpoint: Path) -> bool:
    if not unfused.exists():
        return False
    try:
        info = get_info(load_model(unfused), unfused.name)
    except UserError:  # not ours or damaged: it is written anew
        return False
    return info.sidecar.checkpoint_sha256 == sha256_of(checkpoint)


def _artefact(path: Path, precision: str) -> Artefact:
    return Artefact("onnx", precision, sha256_of(path))


def _said_at_last_build(fused: Path) -> Sidecar | None:
    """Return what the model said that the standing engine was built from: its fused ONNX still has it."""
    try:
        return get_info(load_model(fused), fused.name).sidecar
    except UserError:
        return None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program_name("cflow-build"), description="Build a TensorRT engine from a checkpoint or ONNX."
    )
    parser.add_argument("model", type=Path, nargs="?", help=".pt or .onnx (default: the one in this folder)")
    kind = parser.add_mutually_exclusive_group()
    for precision in ("fp32", "fp16", "int8"):
        kind.add_argument(f"--{precision}", dest="precision", action="store_const", const=precision)
    parser.set_defaults(precision="fp16")
    parser.add_argument("--out", type=output_file, help="the plan to write (default: the model's name with .plan)")
    parser.add_argument("--batch", type=int, default=1, help="most frames that one execution takes (default: 1)")
    parser.add_argument(
        "--frame-size",
        type=parse_frame_size,
        metavar="HxW",
        help="height x width of the camera's frames, such as 1080x1920: the engine resizes them itself",
    )
    parser.add_argument("--tiles-at-once", type=count, default=1, metavar="N", help=TILES_AT_ONCE_HELP)
    parser.add_argument("--layout", choices=LAYOUTS, default=LAYOUTS[0], help=LAYOUT_HELP)
    parser.add_argument("--calibration-data", type=Path, default=DEFAULT_FOLDER, help="good images, for --int8")
    parser.add_argument("--calibrator", choices=METHODS, default="minmax", help="how INT8 ranges are chosen")
    parser.add_argument("--quantise-permutations", action="store_true", help="INT8 for the permutations too")
    parser.add_argument("--labelled", type=Path, metavar="DIR", help="MVTec-style test images: parity in AUROC on them")
    own = " and ".join(f"{BUDGETS[name].image} for {name}" for name in ("fp16", "int8"))
    for area in ("image", "pixel"):
        what = f"points of {area} AUROC that the precision may cost (default: {own})"
        parser.add_argument(f"--budget-{area}", type=float, metavar="POINTS", help=what)
    parser.add_argument("--allow-parity-miss", action="store_true", help="build all the same, and say so")
    parser.add_argument(
        "--allow-anomalous-calibration", action="store_true", help="with images that the model itself calls anomalous"
    )
    parser.add_argument("--backend", choices=("auto", "tensorrt", "tensorrt_rtx"), default="auto")
    parser.add_argument(
        "--target", action="append", default=[], help="compute capability, e.g. 8.9 (tensorrt_rtx; repeat)"
    )
    parser.add_argument("--workspace", type=int, metavar="MIB", help="the builder's scratch memory limit")
    parser.add_argument("--timing-cache", type=Path, help="file that keeps kernel timings (tensorrt)")
    parser.add_argument("--optimization-level", type=int, metavar="0..5", help="how long the builder searches")
    add_plan_arguments(parser)
    parser.add_argument("--no-plan", action="store_true", help="stop at the ONNX files, which need no TensorRT")
    parser.add_argument("-v", "--verbose", action="store_true", help="print all that TensorRT says")
    return parser


def _options(arguments: argparse.Namespace) -> BuildRequest:
    model = arguments.model or find_model(Path())
    if model.suffix not in (".pt", ".onnx"):
        raise UserError("the model must be a .pt or .onnx file", str(model))
    precision: Literal["fp32", "fp16", "int8"] = arguments.precision
    build = BuildOptions(
        precision=precision,
        max_batch=arguments.batch,
        workspace_mib=arguments.workspace,
        timing_cache=arguments.timing_cache,
        compute_capabilities=tuple(arguments.target),
        optimization_level=arguments.optimization_level,
        progress=True,
        verbose=arguments.verbose,
        **plan_options(arguments),
    )
    out = arguments.out or sidecar_path(model).with_suffix(".plan")
    if out.suffix != ".plan":
        raise UserError("--out must end in .plan", str(out))
    typing = _typing_options(arguments, precision)
    return BuildRequest(model, out, build, typing, arguments.frame_size, arguments.layout, arguments.tiles_at_once)


def _typing_options(arguments: argparse.Namespace, precision: Precision) -> TypingOptions:
    own = BUDGETS[precision]
    image = own.image if arguments.budget_image is None else arguments.budget_image
    pixel = own.pixel if arguments.budget_pixel is None else arguments.budget_pixel
    return TypingOptions(
        precision=precision,
        calibration_folder=arguments.calibration_data,
        calibrator=arguments.calibrator,
        quantise_permutations=arguments.quantise_permutations,
        labelled=arguments.labelled,
        budget=Budget(image, pixel),
        allow_miss=arguments.allow_parity_miss,
        allow_anomalous=arguments.allow_anomalous_calibration,
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Build from the command line."""
    arguments = _parser().parse_args(argv)
    options = _options(arguments)
    backend = None if arguments.no_plan else find_backend(arguments.backend)
    if backend is not None:
        check_options(backend, options.build)  # before minutes of export and calibration
    sidecar = build_engine(options, backend)
    wrote = [options.out] if backend else []
    wrote += [sidecar_path(options.out), options.beside(".onnx")]
    print(f"wrote {', '.join(str(path) for path in wrote)}; threshold {sidecar.threshold.value:.4f}")


def command() -> int:
    """Run as a console script."""
    return run_command(main)


if __name__ == "__main__":
    sys.exit(command())
