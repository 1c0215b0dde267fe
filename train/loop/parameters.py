"""A decoder's parameters as one vector, of which each is a view, and what of them a block's products read."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Stacked(NamedTuple):
    """The parameters of K blocks, or their gradients, by kind. D channels, L hidden units, C condition dims."""

    weight1: Tensor  # (K, L, D/2 + C)
    bias1: Tensor  # (K, L)
    weight2: Tensor  # (K, D, L)
    bias2: Tensor  # (K, D)
    scale: Tensor  # (K, D): global_scale
    offset: Tensor  # (K, D): global_offset


_NAMES = ("subnet.0.weight", "subnet.0.bias", "subnet.2.weight", "subnet.2.bias", "global_scale", "global_offset")


class BlockWeights(NamedTuple):
    """One block's parameters, or their gradients, as views."""

    weight1: Tensor  # (L, D/2): the columns that read x1
    weight2: Tensor  # (D, L)
    bias2: Tensor  # (D,)
    scale: Tensor  # (D,)
    offset: Tensor  # (D,)

    @classmethod
    def of(cls, stacked: Stacked, half: int) -> "list[BlockWeights]":
        """Return those of every block; `half` is D/2."""
        kinds = [stacked.weight1[:, :, :half], *(getattr(stacked, name) for name in cls._fields[1:])]
        return [cls(*(kind[k] for kind in kinds)) for k in range(len(stacked.bias1))]


def flatten(blocks: Sequence[nn.Module]) -> Tensor:
    """Return the parameters of blocks of one width as one vector, which `place` gives back to them."""
    return torch.cat([block.get_parameter(name).data.flatten() for name in _NAMES for block in blocks])


def place(blocks: Sequence[nn.Module], flat: Tensor) -> Stacked:
    """Make the blocks' parameters views of the vector `flat`, which has their values; return them stacked."""
    start, stacked = 0, []
    for name in _NAMES:
        group = [block.get_parameter(name) for block in blocks]
        first, begin = group[0], start
        for parameter in group:
            parameter.data = flat[start : start + parameter.numel()].view_as(parameter)
            start += parameter.numel()
        shape = first.shape[1:] if first.shape[0] == 1 else first.shape  # FrEIA's global ones are (1, D)
        stacked.append(flat[begin:start].view(len(group), *shape))
    return Stacked(*stacked)


def stack(flat: Tensor, like: Stacked) -> Stacked:
    """Return views of the vector `flat` that lie in it as `like` lies in its own."""
    return Stacked(*_views(flat, like))


def _views(flat: Tensor, like: Stacked) -> Iterator[Tensor]:
    start = 0
    for tensor in like:
        yield flat[start : start + tensor.numel()].view_as(tensor)
        start += tensor.numel()


def scale_of(gain: Tensor) -> Tensor:
    """Return the global scale of a gain, 0.1 softplus(scale) with beta 0.5."""
    large = 5 * gain > 20  # where softplus is the identity, and its inverse would overflow
    return torch.where(large, 10 * gain, 2 * torch.log(torch.expm1((5 * gain).clamp_max(20))))
