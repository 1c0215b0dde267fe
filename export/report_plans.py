"""The report's models as TensorRT plans: every graph that `export.report_models` made, compiled on this machine."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from export.report_detector import detector_stem
from export.tensorrt_build import build_plan
from export.tensorrt_compat import Backend
from export.tensorrt_options import BuildOptions
from export.tensorrt_precision import Precision
from runtime.files import write_bytes
from runtime.metadata import Metadata, read_sidecar, write_sidecar
from runtime.report.models import Entry, ModelFile

LARGEST_BATCH = 32  # of the plan that batches are swept with; the others are tuned for one frame


def plan_entry(entry: Entry, backend: Backend, say: Callable[[str], None]) -> Entry:
    """Compile an entry's graphs and return it with the plans in their place; a module of torch stays as it is.

    Raises `UserError` for a graph that the library refuses, or builds in another precision than the entry's.
    """
    if not all(file.runner in ("engine", "graph") and file.input_shape is None for file in entry.files):
        return entry
    metadata = _metadata(entry)

    def build(file: ModelFile | None, batch: int = 1) -> ModelFile | None:
        return None if file is None else _build(file, entry, metadata, batch, backend, say)

    network, verdict = build(entry.network), build(entry.verdict)
    swept = build(entry.verdict, LARGEST_BATCH) if entry.kind == "cflow" else None
    sized = verdict or network
    assert sized is not None
    return replace(entry, size_bytes=sized.path.stat().st_size, network=network, verdict=verdict, swept=swept)


def _metadata(entry: Entry) -> Metadata:
    """Return what the sidecars of an entry's plans say: its detector's, whatever part of it the plan holds."""
    folder = entry.files[0].path.parent
    return read_sidecar(folder / f"{detector_stem(entry.encoder, entry.input_size)}.onnx")


def _build(
    file: ModelFile, entry: Entry, metadata: Metadata, batch: int, backend: Backend, say: Callable[[str], None]
) -> ModelFile:
    path = _plan_path(file.path, entry.precision, batch)
    say(f"building {path.name}")
    precision: Precision = entry.precision  # type: ignore[assignment]  # of an entry with a graph one of the three
    plan = build_plan(file.path, BuildOptions(precision=precision, max_batch=batch), backend)
    write_bytes(path, plan.data)
    write_sidecar(path, replace(metadata, name=path.stem, batch=batch, artefacts=(plan.artefact,)))
    return replace(file, path=path)


def _plan_path(onnx_path: Path, precision: str, batch: int) -> Path:
    """Return a plan's path whose sidecar is no other file's: `resnet18-256-network-fp16.plan`, `...-batch32.plan`."""
    parts = [part for part in onnx_path.name.removesuffix(".onnx").split(".") if part != precision]
    return onnx_path.with_name("-".join([*parts, precision, *([f"batch{batch}"] if batch > 1 else [])]) + ".plan")
