"""One detector as all the files that a report measures: exported, fused, typed, cut where the paper's clock stops."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import onnx
import torch
import torch.nn.functional as F

from export.calibration_data import DEFAULT_FOLDER, read_calibration_data
from export.frame_size import resize_inside
from export.fuse import fuse, probe_frames
from export.graph.flops import count_flops, weight_bytes
from export.graph.onnx_files import ExportInfo, save_model, set_info
from export.graph.parts import encoder_taps, likelihood_tensors, up_to
from export.model.cflow import CFlow, DetectorModule, ModelConfig
from export.model.checkpoint import Checkpoint, save_checkpoint
from export.model.encoder import ENCODERS, calibrate_batch_norm
from export.model.score import freeze_constants
from export.precisions.typing import calibrated_int8, to_fp16
from export.to_onnx import export_detector, info_of
from runtime.common.files import sha256_of
from runtime.engines.sidecar import INPUT_NAME, Artefact, Threshold, write_sidecar
from runtime.report.models import OPERANDS, ModelEntry, ModelFile, detector_stem
from runtime.report.schema import Work

FLOAT_BYTES = 4
FORM_PRECISIONS = ("fp32", "fp16")  # INT8 would be calibrated once more for each
CAMERA_SIZE = (1080, 1920)  # height and width of the frames that an engine resizes itself
CALIBRATION_IMAGES = 4  # enough for ranges that make nothing overflow; how accurate they are takes no time
CALIBRATION_DATA = Path(__file__).resolve().parents[2] / DEFAULT_FOLDER  # wherever the report is called


@dataclass(frozen=True, eq=False)
class _Exported:
    """A detector's graphs, beside which everything else is written."""

    stem: Path
    info: ExportInfo
    unfused: onnx.ModelProto
    fused: onnx.ModelProto

    @cached_property
    def parts(self) -> dict[str, tuple[tuple[str, ...], int]]:
        """Where the fused graph's parts "encoder" and "network" end, and the operations of each."""
        ends = {"encoder": encoder_taps(self.fused), "network": likelihood_tensors(self.fused)}
        return {part: (tensors, self.flops(up_to(self.fused, tensors))) for part, tensors in ends.items()}

    def file(self, suffix: str) -> Path:
        """Return the path of one of the detector's files."""
        return self.stem.with_name(self.stem.name + suffix)

    def flops(self, model: onnx.ModelProto) -> int:
        """Return the operations that one frame takes."""
        return count_flops(model, {INPUT_NAME: probe_frames(self.info, count=1)[:1]})

    def typed(self, model: onnx.ModelProto, precision: str) -> onnx.ModelProto:
        """Return a fused graph in a precision."""
        if precision == "fp32":
            return model
        if precision == "fp16":
            return to_fp16(model)
        data = read_calibration_data(CALIBRATION_DATA)
        return calibrated_int8(model, replace(data, paths=data.paths[:CALIBRATION_IMAGES]))

    def entry(
        self, kind: str, precision: str, network: ModelFile | None, verdict: ModelFile | None, work: Work | None = None
    ) -> ModelEntry:
        """Return a row of the table; its size is that of its whole way, where it has one."""
        sidecar, sized = self.info.sidecar, verdict or network
        assert sized is not None
        size_bytes = sized.path.stat().st_size
        return ModelEntry(
            kind,
            sidecar.encoder,
            sidecar.input_size,
            precision,
            size_bytes,
            network=network,
            verdict=verdict,
            work=work,
        )

    def write_sidecar(self, suffix: str, frame_size: tuple[int, int] | None, files: Mapping[Path, str]) -> None:
        """Write the sidecar of a graph and of the `files` beside it, each with its precision."""
        path = self.file(suffix)
        artefacts = tuple(Artefact("onnx", precision, sha256_of(file)) for file, precision in files.items())
        write_sidecar(path, replace(self.info.sidecar, name=path.stem, frame_size=frame_size, artefacts=artefacts))


def detector_entries(
    folder: Path,
    encoder: str,
    size: tuple[int, int],
    precisions: Sequence[str],
    forms: bool = False,
    taps: tuple[str, ...] = (),
) -> Iterator[ModelEntry]:
    """Write the files of a detector with seeded random weights into `folder` and yield what they are.

    `precisions` are "fp32", "fp16" and "int8"; FP32 is always among the files, because the others are made from it.
    With `forms` there are the same detector's decoders as matrix products, and itself with a camera's frames. Without
    `taps` they are the encoder's default ones.
    """
    detector = _export(folder / detector_stem(encoder, size), random_checkpoint(encoder, size, taps))
    yield from _untyped_entries(detector)
    files = {detector.file(".unfused.onnx"): "fp32", detector.file(".onnx"): "fp32"}
    for precision in precisions:
        path = detector.file(".onnx" if precision == "fp32" else f".{precision}.onnx")
        graph = detector.typed(detector.fused, precision)
        if precision != "fp32":
            save_model(graph, path)
            files[path] = precision
        yield from _typed_entries(detector, graph, path, precision)
    detector.write_sidecar(".onnx", None, files)
    if forms:
        yield from _forms(detector, [precision for precision in precisions if precision in FORM_PRECISIONS])


def random_checkpoint(encoder: str, size: tuple[int, int], taps: tuple[str, ...] = ()) -> Checkpoint:
    """Return a detector for `size` (height, width) with its batch norms set on noise; no `taps` are the default ones.

    What a graph computes takes the same time whatever its weights.
    """
    config = ModelConfig(encoder, taps or ENCODERS[encoder].default_taps, size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = CFlow(config).eval()
        coarse = 255 * torch.rand(3, 3, size[0] // 16, size[1] // 16)
    frames = F.interpolate(coarse, size).permute(0, 2, 3, 1).to(torch.uint8)
    with torch.inference_mode():
        calibrate_batch_norm(model.encoder, iter([model.normalise(frames)]))
        constants = freeze_constants(model.log_likelihoods(frames), config.score)
    return Checkpoint(
        model=model.requires_grad_(False),
        constants=constants,
        thresholds={"random": Threshold(0.5 * len(config.taps), "half of the range")},
        default_threshold="random",
        encoder_weights="random",
        data_sha256="0" * 64,
    )


def _export(stem: Path, checkpoint: Checkpoint) -> _Exported:
    path = stem.with_name(stem.name + ".pt")
    save_checkpoint(path, checkpoint)
    info = info_of(checkpoint, path)
    unfused = export_detector(DetectorModule(checkpoint.model, checkpoint.constants))
    set_info(unfused, info)
    fused, _ = fuse(unfused, info)
    detector = _Exported(stem, info, unfused, fused)
    save_model(unfused, detector.file(".unfused.onnx"))
    save_model(fused, detector.file(".onnx"))
    return detector


def _untyped_entries(detector: _Exported) -> Iterator[ModelEntry]:
    """Yield what has no precision of its own: the graph as torch exports it, and the model in torch."""
    frame_bytes = _frame_bytes(detector) * (3 + FLOAT_BYTES) // 3  # and of the anomaly map
    work = Work(detector.flops(detector.unfused), weight_bytes(detector.unfused), frame_bytes)
    unfused = ModelFile("engine", detector.file(".unfused.onnx"))
    eager = ModelFile("torch", detector.file(".pt"), what="eager")
    yield detector.entry("unfused", "fp32", None, unfused, work)
    yield detector.entry("eager", "fp32", eager, eager, work)


def _typed_entries(detector: _Exported, graph: onnx.ModelProto, whole: Path, precision: str) -> Iterator[ModelEntry]:
    """Write what a detector's graph is up to its taps and up to their likelihoods; yield both rows of the table."""
    for part, (tensors, flops) in detector.parts.items():
        cut = up_to(graph, tensors)
        network = ModelFile("graph", detector.file(f".{part}.{precision}.onnx"))
        save_model(cut, network.path)
        work = Work(flops, weight_bytes(cut), _frame_bytes(detector), OPERANDS[precision])
        if part == "encoder":
            yield detector.entry("encoder", precision, network, None, work)
        else:
            yield detector.entry("cflow", precision, network, ModelFile("engine", whole), work)


def _frame_bytes(detector: _Exported) -> int:
    height, width = detector.info.sidecar.input_size
    return 3 * height * width


def _forms(detector: _Exported, precisions: Sequence[str]) -> Iterator[ModelEntry]:
    """Write the detector's other forms and yield what they are, each with a sidecar of its own."""
    products, _ = fuse(detector.unfused, detector.info, "gemm")
    for kind, fused, frame_size in (("gemm", products, None), ("camera", detector.fused, CAMERA_SIZE)):
        files = {}
        for precision in precisions:
            path = detector.file(f"-{kind}.onnx" if precision == "fp32" else f"-{kind}.{precision}.onnx")
            graph = detector.typed(fused, precision)
            save_model(resize_inside(graph, frame_size, path.name) if frame_size else graph, path)
            files[path] = precision
            entry = detector.entry(kind, precision, None, ModelFile("engine", path))
            yield replace(entry, name=f"{entry.label} {frame_size[0]}x{frame_size[1]}") if frame_size else entry
        detector.write_sidecar(f"-{kind}.onnx", frame_size, files)
