"""anomalib's Cflow as its own exporter writes it: a graph to compare latencies with, where anomalib is installed."""

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import onnx

from runtime.errors import UserError


def anomalib_onnx(encoder: str, taps: Sequence[str], size: tuple[int, int]) -> onnx.ModelProto:
    """Return anomalib's Cflow with untrained weights, its input "input" float32 (B, 3, *size).

    Raises `UserError` if anomalib is not installed or does not export this model: its encoders are timm's, whose
    taps have other names than ours except in ResNets.
    """
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), contextlib.ExitStack() as quiet:
        warnings.simplefilter("ignore")
        for redirect in (contextlib.redirect_stdout, contextlib.redirect_stderr):
            quiet.enter_context(redirect(io.StringIO()))
        try:
            from anomalib.models import Cflow

            model = Cflow(backbone=encoder, layers=tuple(taps), pre_trained=False)
            path = Path(model.to_onnx(Path(folder), input_size=size))
        except ImportError as error:
            raise UserError("anomalib must be installed", str(error), "pip install anomalib") from None
        except Exception as error:  # of anomalib, Lightning, timm or torch, whichever refuses first
            raise UserError("anomalib must export this model", f"{type(error).__name__}: {error}") from None
        return onnx.load(str(path))
