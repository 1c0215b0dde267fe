"""anomalib's models as its own exporter writes them: graphs to compare latencies with, where anomalib is installed."""

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import onnx

from runtime.common.errors import UserError


def cflow(encoder: str, taps: Sequence[str], size: tuple[int, int]) -> Any:
    """Return anomalib's Cflow for `size` (height, width), to which its export resizes whatever comes in.

    Its encoders are timm's, whose taps have other names than ours except in ResNets.
    """
    from anomalib.models import Cflow

    resize = Cflow.configure_pre_processor(image_size=size)
    return Cflow(backbone=encoder, layers=tuple(taps), pre_trained=False, pre_processor=resize)


def efficientad(size: tuple[int, int]) -> Any:
    """Return anomalib's EfficientAD for `size` (height, width), the small one; it has an encoder of its own."""
    from anomalib.models import EfficientAd

    return EfficientAd(pre_processor=EfficientAd.configure_pre_processor(image_size=size))


def anomalib_onnx(make: Callable[[tuple[int, int]], Any], size: tuple[int, int]) -> onnx.ModelProto:
    """Return the untrained model of `make` as anomalib exports it, its input "input" float32 (B, 3, *size).

    Raises `UserError` if anomalib is not installed or does not make or export this model.
    """
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), contextlib.ExitStack() as quiet:
        warnings.simplefilter("ignore")
        for redirect in (contextlib.redirect_stdout, contextlib.redirect_stderr):
            quiet.enter_context(redirect(io.StringIO()))
        try:
            path = Path(make(size).to_onnx(Path(folder), input_size=size))
        except ImportError as error:
            raise UserError("anomalib must be installed", str(error), "pip install anomalib") from None
        except Exception as error:  # of anomalib, Lightning, timm or torch, whichever refuses first
            raise UserError("anomalib must export this model", f"{type(error).__name__}: {error}") from None
        return onnx.load(str(path))
