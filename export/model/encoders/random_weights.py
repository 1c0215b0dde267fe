"""Random weights that are of some use where no trained ones can be had, and the batch norms that go with them."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from runtime.common.errors import UserError


def draw_weights(encoder: nn.Module, seed: int) -> None:
    """Draw every convolution's kernels under a binomial window, normalised per output channel.

    White-noise kernels answer to pixel noise and to the exact place of every edge; low-pass ones give
    features that are stable where good images vary, and are of real use where no trained weights can be had.
    """
    generator = torch.Generator().manual_seed(seed)
    for module in encoder.modules():
        if isinstance(module, nn.Conv2d):
            shape = module.weight.shape
            common = torch.randn(*shape[:2], 1, 1, generator=generator)
            weight = (common + 0.5 * torch.randn(*shape, generator=generator)) * _binomial_window(shape[2])
            module.weight.data = weight / weight.flatten(1).norm(dim=1)[:, None, None, None]


def _binomial_window(side: int) -> Tensor:
    row = torch.tensor([math.comb(side - 1, k) for k in range(side)], dtype=torch.float32)
    return row[:, None] * row


def calibrate_batch_norm(encoder: nn.Module, batches: Iterator[Tensor]) -> None:
    """Set the batch norms' running statistics from `batches` of (B, 3, H, W).

    Random convolutions without it let activations grow or vanish with depth; with it each channel has
    mean 0 and variance 1 on good images, and random features are usable. Raises `UserError` for a batch that
    holds a single position of some layer: one value has no variance.
    """
    norms = [module for module in encoder.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average over all batches
        norm.train()
    try:
        with torch.no_grad():
            for images in batches:
                encoder(images)
    except ValueError as error:  # torch's batch norm on a single value per channel
        raise UserError("random weights need more good images or a larger --size", str(error)) from None
    encoder.eval()
