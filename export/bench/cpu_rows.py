"""What the CPU benchmark compares: one detector as a module, as each of its graphs, and its encoder alone."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx

from export.bench.anomalib_onnx import anomalib_onnx, cflow
from export.bench.cpu_engines import Array, Run, with_onnxruntime, with_openvino, with_torch
from export.calibration_data import DEFAULT_FOLDER, read_calibration_data
from export.fuse import fuse, probe_frames
from export.graph.flops import count_flops
from export.graph.onnx_files import ExportInfo, set_info
from export.model.cflow import DetectorModule
from export.model.checkpoint import Checkpoint
from export.precisions.typing import calibrated_int8, to_fp16
from export.to_onnx import export_detector
from runtime.common.errors import UserError
from runtime.engines.session import CpuPrecision
from runtime.engines.sidecar import INPUT_NAME

CALIBRATION_IMAGES = 4  # enough for ranges that make nothing overflow; how accurate they are takes no time
UNFUSED = "unfused, ONNX Runtime"
ANOMALIB = "anomalib's ONNX, ONNX Runtime"


@dataclass(frozen=True)
class Row:
    """One thing to time: `operands` is the type of most products, `encoder` names the row of its encoder alone.

    `judges` says whether its first output is an anomaly map that can be compared with the others'.
    """

    name: str
    run: Run
    batch: Array
    flops: int
    operands: str = "float32"
    encoder: str = ""
    judges: bool = True


@dataclass(frozen=True)
class Graphs:
    """One detector's graphs, each made from the one before, and the tensors that its encoder ends in."""

    unfused: onnx.ModelProto
    fused: onnx.ModelProto
    fp16: onnx.ModelProto
    int8: onnx.ModelProto
    taps: tuple[str, ...]


def make_graphs(checkpoint: Checkpoint, info: ExportInfo, calibration: Path = DEFAULT_FOLDER) -> Graphs:
    """Export, fuse and type a detector as `export.build_engine` does."""
    unfused = export_detector(DetectorModule(checkpoint.model, checkpoint.constants))
    set_info(unfused, info)
    fused, _ = fuse(unfused, info)
    data = read_calibration_data(calibration)
    data = replace(data, paths=data.paths[:CALIBRATION_IMAGES])
    return Graphs(unfused, fused, to_fp16(fused), calibrated_int8(fused, data), encoder_taps(fused))


def encoder_taps(model: onnx.ModelProto) -> tuple[str, ...]:
    """Return the tensors that the encoder of an FP32 graph hands to the decoders, by the names of its nodes."""
    made = {name for node in model.graph.node if node.name.startswith("encoder/") for name in node.output}
    read = {name for node in model.graph.node if not node.name.startswith("encoder/") for name in node.input}
    taps = tuple(sorted(made & read))
    if not taps:
        raise UserError("the encoder must end in tensors that decoders read", "none")
    return taps


def likelihood_tensors(model: onnx.ModelProto) -> tuple[str, ...]:
    """Return the tensors that the decoders of an FP32 graph hand to the score, by the names of its nodes."""
    made = {name for node in model.graph.node if not node.name.startswith("score/") for name in node.output}
    read = {name for node in model.graph.node if node.name.startswith("score/") for name in node.input}
    tensors = tuple(sorted(made & read))
    if not tensors:
        raise UserError("the decoders must end in tensors that the score reads", "none")
    return tensors


def up_to(model: onnx.ModelProto, tensors: tuple[str, ...]) -> onnx.ModelProto:
    """Return the part of a graph from the frames to `tensors`."""
    return onnx.utils.Extractor(model).extract_model([INPUT_NAME], list(tensors))


def make_rows(
    checkpoint: Checkpoint, info: ExportInfo, threads: int, bfloat16: bool, say: Callable[[str], None]
) -> list[Row]:
    """Return every row that this machine can run; what it cannot is said, with the reason, and left out."""
    graphs = make_graphs(checkpoint, info)
    frames = probe_frames(info, count=1)[:1]
    unfused_flops = count_flops(graphs.unfused, {INPUT_NAME: frames})
    module = DetectorModule(checkpoint.model, checkpoint.constants).eval()
    rows = [
        Row("PyTorch, eager", with_torch(module, threads), frames, unfused_flops),
        Row(UNFUSED, with_onnxruntime(graphs.unfused, threads), frames, unfused_flops),
        *_with_encoder("fused, ONNX Runtime", graphs.fused, graphs.taps, frames, "float32", _onnxruntime(threads)),
        *_with_encoder("FP16, ONNX Runtime", graphs.fp16, graphs.taps, frames, "float32", _onnxruntime(threads)),
        *_with_encoder("INT8, ONNX Runtime", graphs.int8, graphs.taps, frames, "int8", _onnxruntime(threads)),
    ]
    exact = _openvino(threads, "float32", frames)
    rows += _with_encoder("fused, OpenVINO", graphs.fused, graphs.taps, frames, "float32", exact)
    rows += _with_encoder("INT8, OpenVINO", graphs.int8, graphs.taps, frames, "int8", exact)
    if bfloat16:
        rounded = _openvino(threads, "bfloat16", frames)
        rows += _with_encoder("bfloat16, OpenVINO", graphs.fused, graphs.taps, frames, "bfloat16", rounded)
        rows += _with_encoder("INT8 and bfloat16, OpenVINO", graphs.int8, graphs.taps, frames, "int8", rounded)
    else:
        say("left out bfloat16: this CPU has no such products")
    try:
        rows.append(_anomalib(info, threads))
    except UserError as error:
        say(f"left out anomalib: {error}")
    return rows


def _onnxruntime(threads: int) -> Callable[[onnx.ModelProto], Run]:
    return lambda model: with_onnxruntime(model, threads)


def _openvino(threads: int, precision: CpuPrecision, frames: Array) -> Callable[[onnx.ModelProto], Run]:
    return lambda model: with_openvino(model, threads, precision, frames.shape)


def _with_encoder(
    name: str,
    model: onnx.ModelProto,
    taps: tuple[str, ...],
    frames: Array,
    operands: str,
    engine: Callable[[onnx.ModelProto], Run],
) -> Iterator[Row]:
    """Yield the row of a graph and that of its encoder alone, in the same engine and precision."""
    encoder = up_to(model, taps)
    alone = f"{name}, encoder alone"
    yield Row(name, engine(model), frames, count_flops(model, {INPUT_NAME: frames}), operands, alone)
    yield Row(alone, engine(encoder), frames, count_flops(encoder, {INPUT_NAME: frames}), operands, judges=False)


def _anomalib(info: ExportInfo, threads: int) -> Row:
    sidecar = info.sidecar
    model = anomalib_onnx(lambda size: cflow(sidecar.encoder, sidecar.taps, size), sidecar.input_size)
    shape = (1, 3, *info.sidecar.input_size)
    batch = np.random.default_rng(0).random(shape, np.float32)
    flops = count_flops(model, {model.graph.input[0].name: batch})
    return Row(ANOMALIB, with_onnxruntime(model, threads), batch, flops, judges=False)
