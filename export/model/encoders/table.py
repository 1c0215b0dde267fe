"""Which encoders there are, what can be asked of each, and one built: only up to its last tap, and frozen."""

from collections.abc import Sequence

from torch import nn

from export.model.encoders.efficientnet_lite import LITE_ENCODERS
from export.model.encoders.spec import REFLECT, EncoderSpec
from export.model.encoders.torchvision_networks import TORCHVISION_ENCODERS
from runtime.common.errors import UserError

ENCODERS: dict[str, EncoderSpec] = {**TORCHVISION_ENCODERS, **LITE_ENCODERS}


def check_taps(name: str, taps: tuple[str, ...]) -> tuple[str, ...]:
    """Return `taps` from fine to coarse, the encoder's default if empty; `UserError` for a tap it has not."""
    if name not in ENCODERS:
        raise UserError(f"the encoder must be one of {', '.join(ENCODERS)}", repr(name))
    spec = ENCODERS[name]
    unknown = [tap for tap in taps if tap not in spec.taps]
    if unknown:
        raise UserError(f"taps of {name} must be among {', '.join(spec.taps)}", ", ".join(unknown))
    return tuple(tap for tap in spec.taps if tap in (taps or spec.default_taps))


def check_size(name: str, taps: tuple[str, ...], size: Sequence[int]) -> None:
    """Raise `UserError` where images of `size` (height, width) leave a single row or column to pad by reflection."""
    coarsest = max(taps, key=lambda tap: ENCODERS[name].taps[tap].stride)
    stride = ENCODERS[name].taps[coarsest].stride
    if name.endswith(REFLECT) and min(size) <= stride:
        raise UserError(
            f"{name} pads by reflection and needs sides above {stride} pixels to tap {coarsest}",
            "x".join(map(str, size)),
            "take a larger --size or finer --taps",
        )


def build_encoder(name: str, taps: tuple[str, ...]) -> nn.Module:
    """Build the frozen encoder, cut after its last tap, with random weights as its network draws them.

    It raises `UserError` for images that `check_size` refuses.
    """
    spec = ENCODERS[name]
    encoder = spec.cut(spec.build(weights=None), taps)
    encoder.register_forward_pre_hook(lambda _, inputs: check_size(name, taps, inputs[0].shape[2:]))
    return encoder.eval().requires_grad_(False)
