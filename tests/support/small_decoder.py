"""A small float64 decoder whose parameters are all at work, and fibers for it."""

import torch
from torch import Tensor

from export.model.flow import Clamp, Decoder

GRID = (5, 7)  # rows, columns


def decoder_of(
    dims: int = 8,
    blocks: int = 3,
    *,
    conditional: bool = True,
    soft: bool = True,
    clamp: Clamp = "tanh(a)",
    factored: bool = False,
) -> Decoder:
    """Return a decoder in float64; soft permutations are orthogonal to float64's rounding."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    decoder = Decoder(
        dims,
        blocks,
        condition_dims=128 if conditional else 0,
        clamp=clamp,
        soft_permutation=soft,
        factored=factored,
        generator=generator,
    ).double()
    for block in decoder.blocks:
        if (
            soft and block.w_perm is not None
        ):  # drawn in float32, orthogonal to its rounding; the last is left out by us
            drawn = torch.randn(block.w_perm.shape, dtype=torch.float64, generator=generator)
            block.w_perm.data = torch.linalg.qr(drawn)[0]
        block.global_scale.data += torch.randn(block.global_scale.shape, generator=generator)
        block.global_offset.data += torch.randn(block.global_offset.shape, generator=generator)
        for parameter in block.subnet.parameters():
            parameter.data *= 2
    return decoder


def batch_of(dims: int, count: int = 20) -> tuple[Tensor, Tensor, Tensor]:
    """Return fibers (N, dims) with their rows and columns (N,) in the grid."""
    generator = torch.Generator().manual_seed(2)
    fibers = torch.randn(count, dims, dtype=torch.float64, generator=generator)
    rows, columns = (torch.randint(0, side, (count,), generator=generator) for side in GRID)
    return fibers, rows, columns
