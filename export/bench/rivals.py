"""What a report sets our detector beside: PaDiM and SPADE, and anomalib's own exports where that is installed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import torch

from export.bench.anomalib_onnx import anomalib_onnx, cflow, efficientad
from export.bench.baselines.common import Baseline
from export.bench.baselines.padim import random_padim
from export.bench.baselines.spade import random_spade
from export.bench.detector import FLOAT_BYTES
from export.graph.flops import count_flops, weight_bytes
from export.graph.onnx_files import save_model
from export.model.encoder import ENCODERS
from export.to_onnx import trace
from runtime.report.models import ModelEntry, ModelFile
from runtime.report.schema import Work
from runtime.report.worker import FRAME_SEED

BASELINES: dict[str, Callable[[str, tuple[int, int]], Baseline[Any]]] = {"padim": random_padim, "spade": random_spade}
Size = tuple[int, int]  # (height, width) in pixels
IMAGES = "images"  # the input of an encoder's graph


def baseline_entry(stem: Path, kind: str, encoder: str, size: tuple[int, int]) -> ModelEntry:
    """Write a baseline with random statistics and its encoder as an ONNX beside `stem`; return what they are."""
    baseline = BASELINES[kind](encoder, size)
    path, features = (stem.with_name(stem.name + suffix) for suffix in (".pt", ".features.onnx"))
    baseline.save(path)
    graph = export_features(baseline)
    save_model(graph, features)
    images = torch.rand((1, 3, *baseline.config.crop), generator=torch.Generator().manual_seed(FRAME_SEED)).numpy()
    flops = count_flops(graph, {IMAGES: images}) + baseline.flops(size)
    read = weight_bytes(graph) + baseline.config.bytes_read
    pixels = size[0] * size[1]
    work = Work(flops, read, (3 + FLOAT_BYTES) * pixels)
    judge = ModelFile("torch", path, what=kind, features=features)
    return ModelEntry(kind, encoder, size, "fp32", path.stat().st_size, None, judge, work)


def export_features(baseline: Baseline[Any]) -> onnx.ModelProto:
    """Return the baseline's encoder as a graph: normalised images (B, 3, h, w) of its crop to its taps."""
    return trace(baseline.encoder, torch.zeros(2, 3, *baseline.config.crop), [IMAGES])


def anomalib_models(encoder: str) -> dict[str, Callable[[Size], Any]]:
    """Return what makes each of anomalib's models for a size, by kind."""
    return {
        "anomalib-cflow": lambda size: cflow(encoder, ENCODERS[encoder].default_taps, size),
        "anomalib-efficientad": efficientad,
    }


def anomalib_entry(
    stem: Path, kind: str, encoder: str, size: tuple[int, int], make: Callable[[Size], Any]
) -> ModelEntry:
    """Write one of anomalib's models as its exporter does. Raises `UserError` where that is not to be had."""
    model = anomalib_onnx(make, size)
    path = stem.with_name(f"{stem.name}.onnx")
    onnx.save(model, str(path))
    shape = (1, 3, *size)
    images = torch.rand(shape, generator=torch.Generator().manual_seed(FRAME_SEED)).numpy()
    flops = count_flops(model, {model.graph.input[0].name: images})
    work = Work(flops, weight_bytes(model), FLOAT_BYTES * 4 * size[0] * size[1])
    judge = ModelFile("graph", path, input_shape=shape)
    return ModelEntry(kind, encoder, size, "fp32", path.stat().st_size, None, judge, work)
