"""What a report sets our detector beside: PaDiM and SPADE, and anomalib's own exports where that is installed."""

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import torch

from export.bench.baselines import BASELINES
from export.bench.baselines.common import Size
from export.bench.detector import FLOAT_BYTES
from export.graph.flops import count_flops, weight_bytes
from export.graph.onnx_files import save_model
from export.model.encoder import ENCODERS
from export.to_onnx import trace
from runtime.common.errors import UserError
from runtime.report.models import ModelEntry, ModelFile
from runtime.report.schema import Work

ANOMALIB_KINDS = ("anomalib-cflow", "anomalib-efficientad")
IMAGES = "images"  # the input of an encoder's graph


def baseline_entry(stem: Path, kind: str, encoder: str, size: Size) -> Iterator[ModelEntry]:
    """Write a baseline with random statistics and its encoder as an ONNX beside `stem`; yield what they are."""
    baseline = BASELINES[kind].random(encoder, size)
    path, features = (stem.with_name(stem.name + suffix) for suffix in (".pt", ".features.onnx"))
    baseline.save(path)
    images = torch.zeros(2, 3, *baseline.config.crop)  # normalised; a batch of 1 would be taken for a constant
    graph = trace(baseline.encoder, [images], [IMAGES])
    save_model(graph, features)
    flops = count_flops(graph, {IMAGES: images[:1].numpy()}) + baseline.config.flops
    work = Work(flops, weight_bytes(graph) + baseline.config.bytes_read, (3 + FLOAT_BYTES) * size[0] * size[1])
    judge = ModelFile("torch", path, what=kind, features=features)
    yield ModelEntry(kind, encoder, size, "fp32", path.stat().st_size, verdict=judge, work=work)


def anomalib_entry(stem: Path, kind: str, encoder: str, size: Size) -> Iterator[ModelEntry]:
    """Write one of anomalib's models as its exporter does. Raises `UserError` where that is not to be had."""
    model, shape = anomalib_onnx(kind, encoder, size), (1, 3, *size)
    path = stem.with_name(f"{stem.name}.onnx")
    onnx.save(model, str(path))
    flops = count_flops(model, {model.graph.input[0].name: torch.zeros(shape).numpy()})
    work = Work(flops, weight_bytes(model), FLOAT_BYTES * 4 * size[0] * size[1])
    judge = ModelFile("graph", path, input_shape=shape)
    yield ModelEntry(kind, encoder, size, "fp32", path.stat().st_size, verdict=judge, work=work)


def anomalib_onnx(kind: str, encoder: str, size: Size) -> onnx.ModelProto:
    """Return an untrained model as anomalib exports it, its input "input" float32 (B, 3, *size), to which it resizes.

    Raises `UserError` if anomalib is not installed or does not make or export this model.
    """
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), contextlib.ExitStack() as quiet:
        warnings.simplefilter("ignore")
        for redirect in (contextlib.redirect_stdout, contextlib.redirect_stderr):
            quiet.enter_context(redirect(io.StringIO()))
        try:
            return onnx.load(str(_model(kind, encoder, size).to_onnx(Path(folder), input_size=size)))
        except ImportError as error:
            raise UserError("anomalib must be installed", str(error), "pip install anomalib") from None
        except Exception as error:  # of anomalib, Lightning, timm or torch, whichever refuses first
            raise UserError("anomalib must export this model", f"{type(error).__name__}: {error}") from None


def _model(kind: str, encoder: str, size: Size) -> Any:
    from anomalib.models import Cflow, EfficientAd

    if kind == "anomalib-efficientad":  # the small one; it has an encoder of its own
        return EfficientAd(pre_processor=EfficientAd.configure_pre_processor(image_size=size))
    taps = ENCODERS[encoder].default_taps  # its encoders are timm's, whose taps have our names only in ResNets
    resize = Cflow.configure_pre_processor(image_size=size)
    return Cflow(backbone=encoder, layers=taps, pre_trained=False, pre_processor=resize)
