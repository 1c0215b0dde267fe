"""`cable.onnx` to an engine that takes the camera's own frames: the training resize becomes a part of the graph.

    python -m export.frame_size cable.onnx --frame-size 1080x1920 --out camera/cable.onnx     # height x width

It is the last step: calibration, parity and fusion run on the graph that takes frames of the input size. The map
stays at the input size. `export.build_engine --frame-size` does the same to all that it writes.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from export.graph.onnx_files import (
    ExportInfo,
    check_onnx_path,
    check_takes_input_size,
    cpu_session,
    foreign_graph,
    get_info,
    load_model,
    save_model,
    set_info,
)
from export.graph.tiled_front import resize_in_front
from export.passes.resize_frames import PREFIX, find_front, put_in_front
from export.precisions.golden import measured
from export.staging import staged_engine
from runtime.common.argument_types import output_file
from runtime.common.errors import UserError, run_command
from runtime.common.files import printable, sha256_of
from runtime.common.program import program_name
from runtime.common.text_table import plain_size
from runtime.engines.sidecar import INPUT_NAME, Artefact, Sidecar, read_sidecar, sidecar_path
from runtime.images.pixels import LARGEST_SIDE
from runtime.images.preprocess import resize

TOLERANCE = 1  # grey level


@dataclass(frozen=True)
class ResizeCheck:
    """How the resize in a graph differs from the training resize, in grey levels, on frames that are hard for it."""

    largest: int
    share: float  # of the values that differ at all

    def __str__(self) -> str:
        return f"at most {self.largest} grey level from the training resize, {100 * self.share:.2g} % of values differ"


def parse_frame_size(text: str) -> tuple[int, int]:
    """Return (height, width) of "1080x1920". Raises `argparse.ArgumentTypeError` for anything else."""
    sides = text.lower().split("x")
    if len(sides) != 2 or not all(side.isascii() and side.isdigit() for side in sides):
        raise argparse.ArgumentTypeError(f"expected HEIGHTxWIDTH in pixels, such as 1080x1920, found {text!r}")
    height, width = (int(side) for side in sides)
    if not (1 <= height <= LARGEST_SIDE and 1 <= width <= LARGEST_SIDE):
        raise argparse.ArgumentTypeError(f"expected sides of 1 to {LARGEST_SIDE} pixels, found {text!r}")
    return height, width


def resize_inside(model: onnx.ModelProto, frame_size: tuple[int, int], origin: str) -> onnx.ModelProto:
    """Return a copy of `model` whose `frames` are [B, *frame_size, 3]. `origin` names it in errors.

    `model` may be of any precision. Raises `UserError` if its resize is inside already, or its graph starts
    otherwise than an export of this project.
    """
    info = get_info(model, origin)
    check_takes_input_size(info, origin)
    resized = (
        _resized(model, info, frame_size, origin) if info.sidecar.tiles is None else resize_in_front(model, frame_size)
    )
    resized.ir_version = model.ir_version
    del resized.graph.value_info[:]
    resized = onnx.shape_inference.infer_shapes(resized, strict_mode=True, data_prop=True)
    set_info(resized, replace(info, sidecar=replace(info.sidecar, frame_size=frame_size)))
    return resized


def _resized(model: onnx.ModelProto, info: ExportInfo, frame_size: tuple[int, int], origin: str) -> onnx.ModelProto:
    graph = gs.import_onnx(model)
    front = find_front(graph)
    if isinstance(front, str):
        raise UserError(f"{origin} must start with Cast and Transpose to planes", front, "fuse it with export.fuse")
    put_in_front(graph, front, frame_size, info.sidecar.input_size)
    return gs.export_onnx(graph)  # type: ignore[no-any-return]


def check_resize(model: onnx.ModelProto, origin: str) -> ResizeCheck:
    """Run the resize of `model` against Pillow's. Raises `UserError` if they differ by more than a grey level."""
    sidecar = get_info(model, origin).sidecar
    assert sidecar.frame_size is not None
    frames = hard_frames(sidecar.frame_size)
    found = resized_levels(model, frames)
    wanted = np.stack([resize(frame, sidecar.input_size) for frame in frames])
    difference = np.abs(found - wanted)
    check = ResizeCheck(int(np.ceil(difference.max())), float((difference != 0).mean()))
    if not difference.max() <= TOLERANCE:  # NaN included
        raise UserError("the resize in the graph must be the training resize within a grey level", str(check))
    return check


def hard_frames(size: tuple[int, int], seed: int = 0) -> NDArray[np.uint8]:
    """Return (3, H, W, 3): noise, a checkerboard of single pixels, and one of 7 with a level's contrast."""
    rows, columns = np.indices(size)
    fine = 255 * ((rows + columns) % 2)
    coarse = 100 + (rows // 7 + columns // 7) % 2
    boards = np.stack([fine, coarse])[..., None].repeat(3, axis=3)
    noise = np.random.default_rng(seed).integers(0, 256, (1, *size, 3))
    return np.concatenate([noise, boards]).astype(np.uint8)


def resized_levels(model: onnx.ModelProto, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Run only the resize of `model` on frames (B, H, W, 3) and return the levels (B, h, w, 3)."""
    graph = gs.import_onnx(model)
    last = [node for node in graph.nodes if node.name.startswith(PREFIX)][-1]
    graph.outputs = last.outputs
    graph.cleanup().toposort()
    front = gs.export_onnx(graph)
    front.ir_version = model.ir_version
    planes: NDArray[np.float32] = cpu_session(front).run(None, {INPUT_NAME: frames})[0]
    return np.moveaxis(planes, 1, 3)


def resize_file_inside(path: Path, frame_size: tuple[int, int], out: Path) -> str:
    """Put the resize into the ONNX at `path`, write it to `out` and return a line that says how it compares."""
    model = load_model(path)
    size = get_info(model, path.name).sidecar.input_size
    if frame_size == size:
        raise UserError(
            "--frame-size must differ from the input size", plain_size(size), "leave it out: nothing to resize"
        )
    resized = resize_inside(model, frame_size, path.name)
    check = check_resize(resized, path.name)
    save_model(resized, out)
    return f"resize {plain_size(frame_size)} to {plain_size(size)} inside {out.name}: {check}"


def _resized_engine(source: Path, frame_size: tuple[int, int], out: Path) -> str:
    """Write `out` with the resize inside and its sidecar, together; return the line that says how it compares."""
    with staged_engine(out) as staged:
        aside = staged.aside(out)
        line = resize_file_inside(source, frame_size, aside)
        described = _own_sidecar(source, aside, out)
        staged.put_in_place(lambda before: described)
    return line


def _own_sidecar(source: Path, resized: Path, out: Path) -> Sidecar:
    """Describe `out` as `source` is described, its thresholds included: the resize moves no score."""
    info = get_info(load_model(resized), out.name)
    sidecar = read_sidecar(source) if sidecar_path(source).is_file() else info.sidecar
    return replace(
        sidecar,
        name=printable(sidecar_path(out).stem),
        frame_size=info.sidecar.frame_size,
        artefacts=(Artefact("onnx", info.precision, sha256_of(resized)),),
        golden=measured(sidecar.golden, {info.precision: resized}, info.sidecar.engine_frame_size),
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Put the resize into an ONNX from the command line."""
    parser = argparse.ArgumentParser(
        prog=program_name("python -m export.frame_size"), description=__doc__.split("\n")[0]
    )
    parser.add_argument("onnx", type=Path, help="a fused ONNX of any precision that takes frames of its input size")
    parser.add_argument(
        "--frame-size", type=parse_frame_size, required=True, metavar="HxW", help="of the camera, such as 1080x1920"
    )
    parser.add_argument("--out", type=output_file, required=True, help="the ONNX to write, with a sidecar of its own")
    options = parser.parse_args(argv)
    source: Path = options.onnx
    out: Path = options.out
    check_onnx_path(out)
    if sidecar_path(out).resolve() == sidecar_path(source).resolve():
        raise UserError("--out must be another engine than the one it is made from", str(out), "give it another name")
    with foreign_graph(source):
        print(_resized_engine(source, options.frame_size, out))
        print(f"wrote {out}, {sidecar_path(out)}")


def command() -> int:
    """Run as a console script."""
    return run_command(main)


if __name__ == "__main__":
    sys.exit(command())
