"""Checkpoints of the paper's reference implementation.

`{'encoder_state_dict': .., 'decoder_state_dict': [..]}`, one decoder per tap from fine to coarse. Everything
else is in the file's name: `mvtec_resnet18_freia-cflow_pl3_cb8_inp256_run0_cable_2021-10-01-12:30:00.pt`.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from export.model.tensor_files import unwrapped
from runtime.common.errors import UserError
from train.data import stc
from train.foreign.weights import ForeignWeights, State, Stated

_NAME = re.compile(
    r"(?P<dataset>mvtec|stc|video)_(?P<encoder>\w+)_(?P<flow>freia-c?flow)_pl(?P<taps>\d+)_cb(?P<blocks>\d+)"
    r"_inp(?P<size>\d+)_run\d+_(?P<class>.+?)(?:_\d{4}-\d\d-\d\d.*)?"
)


def is_reference(content: Any) -> bool:
    """Tell whether a file's content is laid out as the reference implementation does it."""
    return isinstance(content, Mapping) and {"encoder_state_dict", "decoder_state_dict"} <= set(content)


def read_reference(content: Mapping[str, Any], path: Path) -> ForeignWeights:
    """Take the content of `path` apart. Raises `UserError` for a part that is not what the format has there."""
    encoder, decoders = content["encoder_state_dict"], content["decoder_state_dict"]
    if not isinstance(decoders, list) or not decoders:
        raise UserError(f"{path} must hold a list of decoders, one per tap", f"{type(decoders).__name__} of none")
    for part in (encoder, *decoders):
        if not isinstance(part, Mapping) or not all(isinstance(value, Tensor) for value in part.values()):
            raise UserError(f"{path} must hold state dicts of an encoder and its decoders", type(part).__name__)
    return ForeignWeights(
        origin="reference implementation",
        reflection=True,
        encoder=_torchvision_names(unwrapped(encoder)),
        decoders=tuple(unwrapped(decoder) for decoder in decoders),
        stated=stated_by_name(path.name),
    )


def _torchvision_names(encoder: State) -> State:
    """Give MobileNetV3, which is saved as its bare `features` (`0.0.weight`), torchvision's names."""
    return {f"features.{key}" if key[0].isdigit() else key: value for key, value in encoder.items()}


def stated_by_name(name: str) -> Stated:
    """Read a checkpoint's file name; a name of another form says nothing."""
    match = _NAME.fullmatch(name.removesuffix(".pt"))
    if match is None:
        return Stated()
    side = int(match["size"])
    mean, std = (stc.MEAN, stc.STD) if match["dataset"] == "stc" else ((), ())
    return Stated(
        encoder=match["encoder"],
        taps=int(match["taps"]),
        input_size=(side, side),
        coupling_blocks=int(match["blocks"]),
        conditional=match["flow"] == "freia-cflow",
        mean=mean,
        std=std,
        class_name=match["class"],
    )
