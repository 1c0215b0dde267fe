"""One detector as all the files that a report measures: exported, fused, typed, cut where the paper's clock stops."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx

from export.bench.cpu import random_checkpoint
from export.bench.cpu_rows import CALIBRATION_IMAGES, encoder_taps, likelihood_tensors, up_to
from export.calibration_data import DEFAULT_FOLDER, read_calibration_data
from export.frame_size import resize_inside
from export.fuse import fuse, probe_frames
from export.graph.flops import count_flops, weight_bytes
from export.graph.onnx_files import ExportInfo, save_model, set_info
from export.model.cflow import DetectorModule
from export.model.checkpoint import Checkpoint, save_checkpoint
from export.precisions.typing import calibrated_int8, to_fp16
from export.to_onnx import export_detector, info_of
from runtime.common.files import sha256_of
from runtime.engines.sidecar import INPUT_NAME, Artefact, Sidecar, write_sidecar
from runtime.report.models import OPERANDS, ModelEntry, ModelFile, detector_stem
from runtime.report.schema import Work

FLOAT_BYTES = 4
FORM_PRECISIONS = ("fp32", "fp16")  # INT8 would be calibrated once more for each
CAMERA_SIZE = (1080, 1920)  # height and width of the frames that an engine resizes itself
REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, eq=False)
class _Exported:
    """A detector's graphs, and for its parts ("encoder", "network") where they end and what they compute."""

    stem: Path
    info: ExportInfo
    unfused: onnx.ModelProto
    fused: onnx.ModelProto
    ends: dict[str, tuple[str, ...]]
    flops: dict[str, int]

    @property
    def size(self) -> tuple[int, int]:
        return self.info.sidecar.input_size

    def file(self, suffix: str) -> Path:
        return self.stem.with_name(self.stem.name + suffix)


def detector_entries(
    folder: Path, encoder: str, size: tuple[int, int], precisions: Sequence[str], forms: bool = False
) -> list[ModelEntry]:
    """Write the files of a detector with seeded random weights into `folder` and return what they are.

    `precisions` are "fp32", "fp16" and "int8"; FP32 is always among the files, because the others are made from it.
    With `forms` there are the same detector's decoders as matrix products, and itself with a camera's frames.
    """
    stem = folder / detector_stem(encoder, size)
    checkpoint, info = random_checkpoint(encoder, size)
    exported = _export(stem, checkpoint, info)
    entries = [*_plain_entries(exported)]
    artefacts = [_artefact(exported.file(suffix), "fp32") for suffix in (".unfused.onnx", ".onnx")]
    for precision in precisions:
        typed = _typed(exported.fused, precision)
        path = exported.file(".onnx" if precision == "fp32" else f".{precision}.onnx")
        if precision != "fp32":
            save_model(typed, path)
            artefacts.append(_artefact(path, precision))
        entries += _typed_entries(exported, typed, path, precision)
    _write_sidecar(exported.file(".onnx"), exported.info.sidecar, artefacts)
    if forms:
        entries += _forms(exported, [precision for precision in precisions if precision in FORM_PRECISIONS])
    return entries


def _write_sidecar(path: Path, sidecar: Sidecar, artefacts: Sequence[Artefact]) -> None:
    write_sidecar(path, replace(sidecar, name=path.stem, artefacts=tuple(artefacts)))


def _forms(exported: _Exported, precisions: Sequence[str]) -> Iterator[ModelEntry]:
    """Write the detector's other forms and yield what they are, each with a sidecar of its own."""
    products, _ = fuse(exported.unfused, exported.info, "gemm")
    yield from _form(exported, "gemm", {precision: _typed(products, precision) for precision in precisions})
    camera = {
        precision: resize_inside(_typed(exported.fused, precision), CAMERA_SIZE, exported.stem.name)
        for precision in precisions
    }
    yield from _form(exported, "camera", camera, CAMERA_SIZE)


def _form(
    exported: _Exported, kind: str, graphs: Mapping[str, onnx.ModelProto], frame_size: tuple[int, int] | None = None
) -> Iterator[ModelEntry]:
    sidecar, artefacts = replace(exported.info.sidecar, frame_size=frame_size), []
    for precision, graph in graphs.items():
        path = exported.file(f"-{kind}.onnx" if precision == "fp32" else f"-{kind}.{precision}.onnx")
        save_model(graph, path)
        artefacts.append(_artefact(path, precision))
        entry = _entry(exported, kind, precision, path, None, ModelFile("engine", path), None)
        yield replace(entry, name=f"{entry.label} {frame_size[0]}x{frame_size[1]}") if frame_size else entry
    _write_sidecar(exported.file(f"-{kind}.onnx"), sidecar, artefacts)


def _export(stem: Path, checkpoint: Checkpoint, info: ExportInfo) -> _Exported:
    path = stem.with_name(stem.name + ".pt")
    save_checkpoint(path, checkpoint)
    info = info_of(checkpoint, path)
    unfused = export_detector(DetectorModule(checkpoint.model, checkpoint.constants))
    set_info(unfused, info)
    fused, _ = fuse(unfused, info)
    ends = {"encoder": encoder_taps(fused), "network": likelihood_tensors(fused)}
    frame = {INPUT_NAME: probe_frames(info, count=1)[:1]}
    flops = {part: count_flops(up_to(fused, tensors), frame) for part, tensors in ends.items()}
    flops["unfused"] = count_flops(unfused, frame)
    exported = _Exported(stem, info, unfused, fused, ends, flops)
    save_model(unfused, exported.file(".unfused.onnx"))
    save_model(fused, exported.file(".onnx"))
    return exported


def _typed(fused: onnx.ModelProto, precision: str) -> onnx.ModelProto:
    if precision == "fp16":
        return to_fp16(fused)
    if precision == "int8":
        data = read_calibration_data(REPOSITORY / DEFAULT_FOLDER)  # wherever the report is called
        return calibrated_int8(fused, replace(data, paths=data.paths[:CALIBRATION_IMAGES]))
    return fused


def _plain_entries(exported: _Exported) -> Iterator[ModelEntry]:
    """Yield what has no precision of its own: the graph as torch exports it, and the model in torch."""
    work = Work(exported.flops["unfused"], weight_bytes(exported.unfused), _frame_bytes(exported.size, whole=True))
    unfused, checkpoint = exported.file(".unfused.onnx"), exported.file(".pt")
    eager = ModelFile("torch", checkpoint, what="eager")
    yield _entry(exported, "unfused", "fp32", unfused, None, ModelFile("engine", unfused), work)
    yield _entry(exported, "eager", "fp32", checkpoint, eager, eager, work)


def _typed_entries(exported: _Exported, typed: onnx.ModelProto, whole: Path, precision: str) -> Iterator[ModelEntry]:
    """Write what a detector's graph is up to its taps and up to their likelihoods; yield both rows of the table."""
    files = {}
    for part, tensors in exported.ends.items():
        files[part] = exported.file(f".{part}.{precision}.onnx")
        cut = up_to(typed, tensors)
        save_model(cut, files[part])
        weights, flops = weight_bytes(cut), exported.flops[part]
        work = Work(flops, weights, _frame_bytes(exported.size, whole=False), OPERANDS[precision])
        network = ModelFile("graph", files[part])
        if part == "encoder":
            yield _entry(exported, "encoder", precision, files[part], network, None, work)
        else:
            yield _entry(exported, "cflow", precision, whole, network, ModelFile("engine", whole), work)


def _entry(
    exported: _Exported,
    kind: str,
    precision: str,
    sized: Path,
    network: ModelFile | None,
    verdict: ModelFile | None,
    work: Work | None,
) -> ModelEntry:
    encoder = exported.info.sidecar.encoder
    return ModelEntry(kind, encoder, exported.size, precision, sized.stat().st_size, network, verdict, work)


def _frame_bytes(size: tuple[int, int], whole: bool) -> int:
    """Return the bytes of a frame and, of the `whole` way, of its anomaly map."""
    pixels = size[0] * size[1]
    return 3 * pixels + (FLOAT_BYTES * pixels if whole else 0)


def _artefact(path: Path, precision: str) -> Artefact:
    return Artefact("onnx", precision, sha256_of(path))
