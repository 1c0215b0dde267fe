"""A decoder's log-likelihood and its gradient, derived by hand: what one optimisation step of training costs.

The steps of the recipe are small (256 fibers), so that an autograd graph of FrEIA's blocks spends most of its
time around the matrix products. Here the same mathematics is one fixed sequence of operations on buffers made
once, with less of it:

    W1 [x1; c] + b1 = W1x x1 + row(h) + col(w)    the condition is [code(w); code(h)]: two small tables for all
                                                  blocks at once, looked up by position; the same backwards
    Wp (g y + o) = (Wp g) y + Wp o                the global affine is in the product of the permutation
    the last permutation is left out              ‖Wp v‖ = ‖v‖, and only the norm is read
    no gradient for the first block's input       the encoder is frozen

Fibers are columns, (D, N), so that each half of the channels is one piece of memory, and what is read together
lies together: [y2; x1; x2] forwards, [da1; dy2; dy1] backwards. Hidden units are rows, (N, L), as the tables are.

With gl = ∂loss/∂logp / D, and for each block from last to first (h hidden, th = tanh, e = exp s, y before the
global affine, a = 0.1 (W2 h + b2) of which da is 10 times the gradient's own):

    dy = (Wp g)ᵀ dx;  do = Σ dy / g;  dg = (Σ dy y + Σ gl) / g
    da = [(dy2 x2 e + gl) c (1 - th²); dy2];  dW2 = 0.1 da h;  dh = 0.1 (daᵀ W2) [h > 0]
    dW1x = dhᵀ x1ᵀ;  dx = [dy1 + W1xᵀ dhᵀ; dy2 e]
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from export.model.flow import CLAMP, CONDITION_DIMS, Decoder, position_code

HALF_CODE = CONDITION_DIMS // 2
FIBERS_A_CHANNEL = 8  # from which principal axes are taken
PAD = 16  # floats after the hidden units of a fiber: rows a power of two apart would share few sets of the cache


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
        self._permutations = _stack_permutations(blocks)
        code = position_code(height, width).to(self.parameters)
        self._column_code, self._row_code = code[0, :, :HALF_CODE].contiguous(), code[:, 0, HALF_CODE:].contiguous()
        self._mixes = torch.empty_like(self._permutations[:-1])
        self._buffers: dict[int, _Buffers] = {}

    @property
    def first_permutation(self) -> Tensor:
        """The first block's permutation, (D, D): the decoder's own tensor."""
        return self._permutations[0]

    @torch.no_grad()
    def log_likelihood(self, fibers: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """Return the log-likelihood (N,), nats per dimension, of fibers (N, D) at grid positions `rows`, `columns`.

        What `backward` needs is kept until the next call.
        """
        buffers = self._buffers_for(len(fibers))
        self._rows, self._columns = rows, columns
        self._look_up(buffers, rows, columns)
        self._gains = 0.1 * F.softplus(self._stacked.scale, beta=0.5)  # (K, D)
        moved = self._fold_affine(self._gains)
        buffers.blocks[0].x.copy_(fibers.t())
        last = len(buffers.blocks) - 1
        for k, (at, weights) in enumerate(zip(buffers.blocks, self._weights, strict=True)):
            at.hidden.addmm_(at.x1.t(), weights.weight1.t()).relu_()
            torch.addmm(weights.bias2[:, None], weights.weight2, at.hidden.t(), beta=0.1, alpha=0.1, out=buffers.subnet)
            if self.slope != 1:
                buffers.clamped.mul_(self.slope)
            torch.tanh(buffers.clamped, out=at.tanh)
            torch.mul(at.tanh, CLAMP, out=at.scale).exp_()
            torch.addcmul(buffers.shift, at.x2, at.scale, out=at.y2)
            if k < last:
                torch.addmm(moved[k], self._mixes[k], at.y, out=buffers.blocks[k + 1].x)
        offset, gain = (self._swap(each[last])[:, None] for each in (self._stacked.offset, self._gains))
        torch.addcmul(offset, buffers.blocks[last].y, gain, out=buffers.affine)
        log_det = CLAMP * buffers.tanh.sum((0, 1)) + self._gains.log().sum()
        norm = torch.mul(buffers.affine, buffers.affine, out=buffers.subnet).sum(0)
        return (log_det - 0.5 * norm - 0.5 * self.channels * math.log(2 * math.pi)) / self.channels

    @torch.no_grad()
    def backward(self, gradient: Tensor) -> None:
        """Write the gradient of a loss into `self.gradient`, given its derivative (N,) by each log-likelihood.

        Once per call of `log_likelihood`: it works in that call's buffers.
        """
        buffers = self._buffers[len(gradient)]
        weight = gradient / self.channels
        slope = CLAMP * self.slope
        of_log_det = slope * weight
        dx, dx1, dx2 = buffers.subnet, buffers.clamped, buffers.shift
        last = len(buffers.blocks) - 1
        torch.mul(buffers.affine.mul_(self._swap(self._gains[last])[:, None]), -weight, out=buffers.blocks[last].dy)
        for k in range(last, -1, -1):
            at, weights, gradients = buffers.blocks[k], self._weights[k], self._gradients[k]
            if k < last:
                torch.mm(self._mixes[k].t(), dx, out=at.dy)
            torch.mul(at.dy2, at.scale, out=dx2)
            torch.addcmul(of_log_det, dx2, at.x2, value=slope, out=at.da1)
            torch.ops.aten.tanh_backward(at.da1, at.tanh, grad_input=at.da1)
            torch.addmm(gradients.weight2, at.da, at.hidden, beta=0, alpha=0.1, out=gradients.weight2)
            torch.addmm(buffers.dh, at.da.t(), weights.weight2, beta=0, alpha=0.1, out=buffers.dh)
            torch.ops.aten.threshold_backward(buffers.dh, at.hidden, 0, grad_input=at.hidden)  # where h > 0
            torch.mm(at.hidden.t(), at.x1.t(), out=gradients.weight1)
            if k:
                torch.addmm(at.dy1, weights.weight1.t(), at.hidden.t(), out=dx1)
        self._sum_over_fibers(buffers, weight)
        self._condition_gradient(buffers)

    def _sum_over_fibers(self, buffers: "_Buffers", weight: Tensor) -> None:
        """Write the gradients of the second biases and of the global affines."""
        half, gradients = self.channels // 2, self._d_stacked
        sums = buffers.backward.sum(2)
        torch.mul(sums[:, : self.channels], 0.1, out=gradients.bias2)
        torch.div(self._swap(sums[:, half:]), self._gains, out=gradients.offset)
        by_gain = self._swap(buffers.backward[:, half:].mul_(buffers.forward[:, : self.channels]).sum(2))
        torch.div(by_gain.add_(weight.sum()), self._gains, out=gradients.scale)
        gradients.scale.mul_(0.1 * torch.sigmoid(0.5 * self._stacked.scale))

    def _fold_affine(self, gains: Tensor) -> Tensor:
        """Fill the products of permutation and gain, (K - 1, D, D), for [y2; x1]; return Wp o, (K - 1, D, 1)."""
        half, permutations = self.channels // 2, self._permutations[:-1]
        for to, of in ((slice(half), slice(half, None)), (slice(half, None), slice(half))):
            torch.mul(permutations[:, :, of], gains[:-1, None, of], out=self._mixes[:, :, to])
        return permutations @ self._stacked.offset[:-1, :, None]

    def _swap(self, channels: Tensor) -> Tensor:
        """Return (..., D) with its halves exchanged."""
        return channels.roll(self.channels // 2, -1)

    @torch.no_grad()
    def standardise(self, fibers: Tensor, rows: Tensor, columns: Tensor) -> None:
        """Set every block's global affine so that its output over `fibers` has mean 0 and standard deviation 1.

        The data-dependent start of Glow (Kingma and Dhariwal 2018, section 3.1), block after block. FrEIA's own
        start leaves features at the encoder's scale, and global scales are slow to learn: their gradient is a
        tenth of a weight's. A channel that hardly varies is scaled as one at 2 % of the mean deviation.

        The first permutation, where it is a soft one, turns to the principal axes of what it gets. So the second
        block's affine makes the fibers white, and training begins about where a normal distribution with full
        covariance ends (`train.judging.gaussian`). Fewer than `FIBERS_A_CHANNEL` do not tell these axes.
        """
        buffers = self._buffers_for(len(fibers))
        for k, (at, weights) in enumerate(zip(buffers.blocks, self._weights, strict=True)):
            self.log_likelihood(fibers, rows, columns)
            y = self._swap(at.y.t())
            deviation = y.std(0)
            gain = 1 / deviation.clamp_min(0.02 * deviation.mean())
            large = 5 * gain > 20  # where softplus is the identity, and its inverse would overflow
            weights.scale.copy_(torch.where(large, 10 * gain, 2 * torch.log(torch.expm1((5 * gain).clamp_max(20)))))
            weights.offset.copy_(-y.mean(0) * gain)
            if k == 0 and len(fibers) >= FIBERS_A_CHANNEL * self.channels:
                _turn_to_principal_axes(self._permutations[0], y * gain)

    def _look_up(self, buffers: "_Buffers", rows: Tensor, columns: Tensor) -> None:
        """Fill the hidden units of all blocks with what they get beside x1: condition and bias."""
        bias = self._stacked.bias1.view(-1)
        if not self.conditional:
            buffers.hidden[:, :-PAD] = bias
            return
        by_column, by_row = self._condition_weights(self._stacked)
        of_columns, of_rows = (
            code.new_zeros(len(code), len(bias) + PAD) for code in (self._column_code, self._row_code)
        )
        torch.addmm(bias, self._column_code, by_column.t(), out=of_columns[:, :-PAD])
        torch.mm(self._row_code, by_row.t(), out=of_rows[:, :-PAD])
        torch.index_select(of_columns, 0, columns, out=buffers.hidden)
        buffers.hidden.add_(torch.index_select(of_rows, 0, rows, out=buffers.looked_up))

    def _condition_gradient(self, buffers: "_Buffers") -> None:
        """Write the gradients of what `_look_up` reads."""
        bias = self._d_stacked.bias1.view(-1)
        if not self.conditional:
            torch.sum(buffers.hidden[:, :-PAD], 0, out=bias)
            return
        by_column, by_row = self._condition_weights(self._d_stacked)
        for code, positions, out in (
            (self._column_code, self._columns, by_column),
            (self._row_code, self._rows, by_row),
        ):
            sums = code.new_zeros(len(code), len(bias) + PAD).index_add_(0, positions, buffers.hidden)[:, :-PAD]
            torch.mm(sums.t(), code, out=out)
        torch.sum(sums, 0, out=bias)

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
    """What one block reads and leaves for its gradient: views of what all blocks have."""

    def __init__(self, whole: "_Buffers", block: int, units: int) -> None:
        half = whole.tanh.shape[1]
        forward, backward = whole.forward[block], whole.backward[block]
        self.y2, self.x1, self.x2 = forward.split(half)
        self.y, self.x = forward[: 2 * half], forward[half:]  # y with its halves exchanged
        self.da1, self.dy2, self.dy1 = backward.split(half)
        self.da, self.dy = backward[: 2 * half], backward[half:]
        self.hidden = whole.hidden[:, block * units : (block + 1) * units]  # (N, L); after `backward` its gradient
        self.tanh, self.scale = whole.tanh[block], whole.scale[block]  # e^s


class _Buffers:
    """What fiber batches of one size need, kept from step to step: N fibers, D channels, K blocks, L hidden units."""

    def __init__(self, like: Tensor, fibers: int, channels: int, blocks: int, units: int) -> None:
        half = channels // 2
        self.hidden, self.looked_up = (like.new_zeros(fibers, blocks * units + PAD) for _ in range(2))
        self.forward, self.backward = (like.new_empty(blocks, 3 * half, fibers) for _ in range(2))
        self.tanh, self.scale = (like.new_empty(blocks, half, fibers) for _ in range(2))
        self.blocks = [_AtBlock(self, block, units) for block in range(blocks)]
        self.affine, self.subnet = (like.new_empty(channels, fibers) for _ in range(2))
        self.clamped, self.shift = self.subnet.split(half)
        self.dh = like.new_empty(fibers, units)


def _turn_to_principal_axes(permutation: Tensor, x: Tensor) -> None:
    """Make a soft permutation's outputs over x (N, D) uncorrelated, the two halves with like shares of variance."""
    if not bool(((permutation == 0) | (permutation == 1)).all()):
        axes = torch.linalg.eigh(torch.cov(x.double().T)).eigenvectors.T
        permutation.copy_(torch.cat([axes[0::2], axes[1::2]]))


def _stack_permutations(blocks: list[torch.nn.Module]) -> Tensor:
    """Move the permutations of K blocks into one tensor, (K, D, D), of which they become views."""
    stacked = torch.stack([_parameter(block, "w_perm").data for block in blocks])
    for block, permutation in zip(blocks, stacked, strict=True):
        _parameter(block, "w_perm").data = permutation
    return stacked


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
