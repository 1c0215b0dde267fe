"""What no weight tells of a foreign model but the likelihood of good images does: its soft clamp and its padding.

All variants take the same weights, and training raised the likelihood of good images under one of them. A wrong
clamp costs likelihood everywhere, a wrong padding at the images' borders.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import get_args

import torch
from torch import Tensor, nn

from export.model.cflow import ModelConfig
from export.model.encoder import REFLECT, build_encoder, load_encoder_state
from export.model.flow import Clamp
from runtime.common.errors import UserError
from train.foreign.proof import draw, mean_log_likelihood
from train.foreign.weights import ForeignWeights, State

MARGIN = 0.05  # nats per dimension by which one variant must explain good images better


def variants_of(config: ModelConfig, clamp: Clamp | None) -> list[ModelConfig]:
    """Return what the model can be, `config` in its own padding first: both clamps if unknown, both paddings.

    Forks of the reference implementation take torchvision's residual networks, which pad with zeros.
    """
    encoders = dict.fromkeys((config.encoder, config.encoder.removesuffix(REFLECT)))
    clamps: Sequence[Clamp] = get_args(Clamp) if clamp is None else (clamp,)
    return [replace(config, encoder=encoder, clamp=kind) for encoder in encoders for kind in clamps]


def fits_of(
    variants: Sequence[ModelConfig], source: ForeignWeights, decoders: Sequence[State], frames: Tensor
) -> dict[ModelConfig, float]:
    """Return the mean log-likelihood of `frames` (B, H, W, 3), nats per dimension, if a variant is what was trained."""
    by_padding = {variant.encoder: variant for variant in variants}
    drawn = {name: draw(_encoder(variant, source), variant, frames) for name, variant in by_padding.items()}
    return {variant: mean_log_likelihood(decoders, drawn[variant.encoder], variant.clamp) for variant in variants}


def _encoder(variant: ModelConfig, source: ForeignWeights) -> nn.Module:
    with torch.device("meta"):  # without drawing weights that the source's replace
        encoder = build_encoder(variant.encoder, variant.taps)
    load_encoder_state(encoder.to_empty(device="cpu"), source.encoder, source.origin)
    return encoder


def choose(fits: Mapping[ModelConfig, float]) -> ModelConfig:
    """Return the variant that explains good images best; of paddings that are alike in it the first's.

    Raises `UserError` where the clamps are alike in it.
    """
    best = max(fits, key=lambda variant: fits[variant])
    other_clamps = {variant: fit for variant, fit in fits.items() if variant.clamp != best.clamp}
    if other_clamps:
        rival = max(other_clamps, key=lambda variant: fits[variant])
        if not fits[best] - fits[rival] > MARGIN:
            raise UserError(
                "the soft clamp must show in the likelihood of good images",
                f"{fits[best]:.3f} nats per dimension with {best.clamp}, {fits[rival]:.3f} with {rival.clamp}",
                "name it by --clamp",
            )
    first = replace(best, encoder=next(iter(fits)).encoder)
    return best if fits[best] - fits[first] > MARGIN else first
