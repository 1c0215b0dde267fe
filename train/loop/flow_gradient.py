"""A decoder's log-likelihood and its gradient, derived by hand: what one optimisation step of training costs.

The steps of the recipe are small (256 fibers), so that an autograd graph of FrEIA's blocks spends most of its
time around the matrix products. Here the same mathematics is one fixed sequence of operations on buffers made
once, with less of it:

    W1 [x1; c] + b1 = W1x x1 + row(h) + col(w)    the condition is [code(w); code(h)]: two small tables for all
                                                  blocks at once, looked up by position; the same backwards
    the last permutation is left out              ‖Wp v‖ = ‖v‖, and only the norm is read
    no gradient for the first block's input       the encoder is frozen

With gl = ∂loss/∂logp / D, and for each block from last to first (h hidden, th = tanh, e = exp s, y before the
global affine, v after it):

    dv = dx Wp;  do = Σ dv;  dg = Σ dv y + Σ gl / g;  dy = dv g
    da = 0.1 [(dy2 x2 e + gl) c (1 - th²), dy2];  dW2 = daᵀ h;  dh = (da W2) [h > 0]
    dW1x = dhᵀ x1;  dx = [dy1 + dh W1x, dy2 e]
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from export.model.flow import CLAMP, CONDITION_DIMS, Decoder, position_code
from train.loop.normal import Normal

HALF_CODE = CONDITION_DIMS // 2


class FlowGradient:
    """Log-likelihoods of fibers under `decoder` (equal to its own up to rounding) and their gradient.

    The decoder's parameters become views of one vector `parameters`, whose gradient is the vector `gradient`:
    an optimiser, or a sum over several processes, sees one tensor. `height` and `width` are the tap's grid.
    """

    def __init__(self, decoder: Decoder, height: int, width: int) -> None:
        blocks = list(decoder.blocks)
        self.channels = decoder.dims
        self.conditional = _parameter(blocks[0], _NAMES[0]).shape[1] > decoder.dims // 2
        self.slope = 1.0 if blocks[0].soft_clamp == "tanh(a)" else 1 / CLAMP  # of the clamp's argument
        groups = [[_parameter(block, name) for block in blocks] for name in _NAMES]
        self.parameters, stacked = _flatten(groups)
        self.gradient = torch.zeros_like(self.parameters)
        self._stacked = _Stacked(*stacked)
        self._d_stacked = _Stacked(*_views(self.gradient, stacked))
        half = decoder.dims // 2
        self._weights = [_Weights.of(self._stacked, k, half) for k in range(len(blocks))]
        self._gradients = [_Weights.of(self._d_stacked, k, half) for k in range(len(blocks))]
        self._permutations = [_Permutation(block.w_perm.data) for block in blocks]  # type: ignore[arg-type]
        code = position_code(height, width).to(self.parameters)
        self._column_code, self._row_code = code[0, :, :HALF_CODE].contiguous(), code[:, 0, HALF_CODE:].contiguous()
        self._buffers: dict[int, _Buffers] = {}

    @property
    def first_permutation(self) -> Tensor:
        """The first block's permutation, (D, D): the decoder's own tensor."""
        return self._permutations[0].matrix

    @torch.no_grad()
    def log_likelihood(self, fibers: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """Return the log-likelihood (N,), nats per dimension, of fibers (N, D) at grid positions `rows`, `columns`.

        What `backward` needs is kept until the next call.
        """
        buffers = self._buffers_for(len(fibers))
        self._rows, self._columns = rows, columns
        self._look_up(buffers, rows, columns)
        self._gains = 0.1 * F.softplus(self._stacked.scale, beta=0.5)  # (K, D)
        log_scale = buffers.half.zero_()
        buffers.blocks[0].x.copy_(fibers)
        last = len(buffers.blocks) - 1
        for k, (at, weights) in enumerate(zip(buffers.blocks, self._weights, strict=True)):
            at.hidden.addmm_(at.x1, weights.weight1.t()).relu_()
            torch.addmm(weights.bias2, at.hidden, weights.weight2.t(), beta=0.1, alpha=0.1, out=at.subnet)
            if self.slope != 1:
                at.bounded.mul_(self.slope)
            log_scale.add_(at.bounded.tanh_())
            torch.mul(at.bounded, CLAMP, out=at.scale).exp_()
            at.y1.copy_(at.x1)
            torch.addcmul(at.shift, at.x2, at.scale, out=at.y2)
            torch.addcmul(weights.offset, at.y, self._gains[k], out=buffers.affine)
            if k < last:
                self._permutations[k].forward(buffers.affine, buffers.blocks[k + 1].x)
        log_det = CLAMP * log_scale.sum(1) + self._gains.log().sum()
        norm = torch.mul(buffers.affine, buffers.affine, out=buffers.dx).sum(1)
        return (log_det - 0.5 * norm - 0.5 * self.channels * math.log(2 * math.pi)) / self.channels

    @torch.no_grad()
    def backward(self, gradient: Tensor) -> None:
        """Write the gradient of a loss into `self.gradient`, given its derivative (N,) by each log-likelihood.

        Once per call of `log_likelihood`: it works in that call's buffers.
        """
        buffers = self._buffers[len(gradient)]
        weight = (gradient / self.channels)[:, None]
        slope = 0.1 * CLAMP * self.slope
        dx, dv, da = buffers.dx, buffers.dv, buffers.da
        last = len(buffers.blocks) - 1
        torch.mul(buffers.affine, weight, out=dv).neg_()
        for k in range(last, -1, -1):
            at, weights, gradients = buffers.blocks[k], self._weights[k], self._gradients[k]
            if k < last:
                self._permutations[k].backward(dx, dv)
            torch.sum(dv, 0, out=gradients.offset)
            torch.sum(at.y.mul_(dv), 0, out=gradients.scale)
            torch.mul(dv, self._gains[k], out=dx)  # dy
            dx2 = torch.mul(buffers.dx2, at.scale, out=buffers.half)
            torch.mul(buffers.dx2, 0.1, out=buffers.da_shift)
            torch.addcmul(weight, dx2, at.x2, out=buffers.da_scale)
            buffers.da_scale.mul_(at.bounded.square_().mul_(-slope).add_(slope))  # 1 - tanh²
            torch.mm(da.t(), at.hidden, out=gradients.weight2)
            torch.sum(da, 0, out=gradients.bias2)
            torch.mm(da, weights.weight2, out=buffers.dh)
            torch.ops.aten.threshold_backward(buffers.dh, at.hidden, 0, grad_input=at.hidden)  # where h > 0
            torch.mm(at.hidden.t(), at.x1, out=gradients.weight1)
            if k:
                buffers.dx1.addmm_(at.hidden, weights.weight1)
                buffers.dx2.copy_(dx2)
        self._d_stacked.scale.add_(weight.sum() / self._gains).mul_(0.1 * torch.sigmoid(0.5 * self._stacked.scale))
        torch.sum(buffers.hidden, 0, out=self._d_stacked.bias1.view(-1))
        self._condition_gradient(buffers)

    @torch.no_grad()
    def begin_as(self, normal: Normal) -> None:
        """Make the flow the distribution `normal`: up to rounding it says the same of every fiber.

        The couplings begin as the identity, because their last layers are zero (as Glow's: Kingma and Dhariwal 2018,
        section 3.3). The first block's affine standardises the channels, the first permutation turns to the principal
        axes, the two halves with like shares of variance, and the second block's affine makes the fibers white. A hard
        permutation turns nothing, and a single block is followed by none: then the channels are independent.
        """
        for whole in (self._stacked.weight2, self._stacked.bias2, self._stacked.offset):
            whole.zero_()
        self._stacked.scale.copy_(_scale_of(torch.ones_like(self._stacked.scale)))
        self._weights[0].scale.copy_(_scale_of(1 / normal.deviations))
        self._weights[0].offset.copy_(-normal.mean / normal.deviations)
        if len(self._weights) > 1 and not self._permutations[0].hard:
            order = torch.cat([torch.arange(0, self.channels, 2), torch.arange(1, self.channels, 2)])
            self.first_permutation.copy_(normal.axes[order])
            self._weights[1].scale.copy_(_scale_of(normal.variances[order].rsqrt()))

    def _look_up(self, buffers: "_Buffers", rows: Tensor, columns: Tensor) -> None:
        """Fill the hidden units of all blocks with what they get beside x1: condition and bias."""
        bias = self._stacked.bias1.view(-1)
        if not self.conditional:
            buffers.hidden.copy_(bias.expand_as(buffers.hidden))
            return
        by_column, by_row = self._condition_weights(self._stacked)
        torch.index_select(torch.addmm(bias, self._column_code, by_column.t()), 0, columns, out=buffers.hidden)
        buffers.hidden.add_(torch.index_select(self._row_code @ by_row.t(), 0, rows, out=buffers.looked_up))

    def _condition_gradient(self, buffers: "_Buffers") -> None:
        if not self.conditional:
            return
        by_column, by_row = self._condition_weights(self._d_stacked)
        for code, positions, out in (
            (self._column_code, self._columns, by_column),
            (self._row_code, self._rows, by_row),
        ):
            sums = code.new_zeros(len(code), buffers.hidden.shape[1]).index_add_(0, positions, buffers.hidden)
            out.copy_(sums.t() @ code)

    def _condition_weights(self, stacked: "_Stacked") -> tuple[Tensor, Tensor]:
        """Return the columns of all W1 that read the condition's two halves, each (K·L, 64)."""
        start = self.channels // 2
        weight = stacked.weight1.flatten(0, 1)
        return weight[:, start : start + HALF_CODE], weight[:, start + HALF_CODE :]

    def _buffers_for(self, fibers: int) -> "_Buffers":
        if fibers not in self._buffers:
            blocks, units = self._stacked.bias1.shape
            self._buffers[fibers] = _Buffers(self.parameters, fibers, self.channels, blocks, units)
        return self._buffers[fibers]


class _Stacked(NamedTuple):
    """The parameters of K blocks, or their gradients, by kind. D channels, L hidden units, C condition dims."""

    weight1: Tensor  # (K, L, D/2 + C)
    bias1: Tensor  # (K, L)
    weight2: Tensor  # (K, D, L)
    bias2: Tensor  # (K, D)
    scale: Tensor  # (K, D): global_scale
    offset: Tensor  # (K, D): global_offset


_NAMES = ("subnet.0.weight", "subnet.0.bias", "subnet.2.weight", "subnet.2.bias", "global_scale", "global_offset")


class _Weights(NamedTuple):
    """One block's parameters, or their gradients, as views."""

    weight1: Tensor  # (L, D/2): the columns that read x1
    weight2: Tensor  # (D, L)
    bias2: Tensor  # (D,)
    scale: Tensor  # (D,)
    offset: Tensor  # (D,)

    @classmethod
    def of(cls, stacked: _Stacked, block: int, half: int) -> "_Weights":
        weight1 = stacked.weight1[block][:, :half]
        return cls(weight1, *(getattr(stacked, name)[block] for name in cls._fields[1:]))


class _AtBlock:
    """What one block reads and leaves for its gradient; halves are views of their whole."""

    def __init__(self, like: Tensor, fibers: int, channels: int, hidden: Tensor) -> None:
        half = channels // 2
        self.x, self.y, self.subnet = (like.new_empty(fibers, channels) for _ in range(3))
        self.hidden = hidden  # (N, L); after `backward` its gradient
        self.scale = like.new_empty(fibers, half)  # e^s
        self.x1, self.x2 = self.x[:, :half], self.x[:, half:]
        self.y1, self.y2 = self.y[:, :half], self.y[:, half:]
        self.bounded, self.shift = self.subnet[:, :half], self.subnet[:, half:]  # tanh, t


class _Buffers:
    """What fiber batches of one size need, kept from step to step: N fibers, D channels, K blocks, L hidden units."""

    def __init__(self, like: Tensor, fibers: int, channels: int, blocks: int, units: int) -> None:
        half = channels // 2
        self.hidden, self.looked_up = (like.new_empty(fibers, blocks * units) for _ in range(2))
        self.blocks = [_AtBlock(like, fibers, channels, part) for part in torch.split(self.hidden, units, dim=1)]
        self.affine, self.dx, self.dv, self.da = (like.new_empty(fibers, channels) for _ in range(4))
        self.dx1, self.dx2 = self.dx[:, :half], self.dx[:, half:]
        self.da_scale, self.da_shift = self.da[:, :half], self.da[:, half:]
        self.dh = like.new_empty(fibers, units)
        self.half = like.new_empty(fibers, half)


class _Permutation:
    """x Wpᵀ and its gradient; an index where Wp is a permutation matrix, which is no arithmetic at all."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix
        self.hard = bool(((matrix == 0) | (matrix == 1)).all())
        self.index, self.inverse = matrix.argmax(1), matrix.argmax(0)

    def forward(self, x: Tensor, out: Tensor) -> None:
        if self.hard:
            torch.index_select(x, 1, self.index, out=out)
        else:
            torch.mm(x, self.matrix.t(), out=out)

    def backward(self, gradient: Tensor, out: Tensor) -> None:
        if self.hard:
            torch.index_select(gradient, 1, self.inverse, out=out)
        else:
            torch.mm(gradient, self.matrix, out=out)


def _scale_of(gain: Tensor) -> Tensor:
    """Return the global scale of a gain, 0.1 softplus(scale) with beta 0.5."""
    large = 5 * gain > 20  # where softplus is the identity, and its inverse would overflow
    return torch.where(large, 10 * gain, 2 * torch.log(torch.expm1((5 * gain).clamp_max(20))))


def _parameter(block: torch.nn.Module, name: str) -> torch.nn.Parameter:
    return block.get_parameter(name)


def _flatten(groups: list[list[torch.nn.Parameter]]) -> tuple[Tensor, list[Tensor]]:
    """Move parameters into one vector, of which they become views; also return each group stacked, (K, ...)."""
    flat = torch.cat([parameter.data.flatten() for group in groups for parameter in group])
    start, stacked = 0, []
    for group in groups:
        first, begin = group[0], start
        for parameter in group:
            parameter.data = flat[start : start + parameter.numel()].view_as(parameter)
            start += parameter.numel()
        shape = first.shape[1:] if first.shape[0] == 1 else first.shape  # FrEIA's global ones are (1, D)
        stacked.append(flat[begin:start].view(len(group), *shape))
    return flat, stacked


def _views(flat: Tensor, like: list[Tensor]) -> Iterator[Tensor]:
    """Cut `flat` into views shaped as `like`, one after another."""
    start = 0
    for tensor in like:
        yield flat[start : start + tensor.numel()].view_as(tensor)
        start += tensor.numel()
