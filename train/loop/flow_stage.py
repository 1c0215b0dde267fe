"""Coupling blocks of one width: what they make of fibers, and the gradient of that, derived by hand.

One optimisation step of training is a fixed sequence of operations on buffers made once. For each block from last to
first (h hidden, th = tanh, e = exp s, g = the global scale, y before the global affine, v after it):

    dv = dx Wp;  do = Σ dv;  dg = Σ dv y + Σ gl / g;  dy = dv g
    da = 0.1 [(dy2 x2 e + gl) c (1 - th²), dy2];  dW2 = daᵀ h;  dh = (da W2) [h > 0]
    dW1x = dhᵀ x1;  dx = [dy1 + dh W1x, dy2 e]

with gl the derivative of the loss by each log-determinant. The last block's permutation is left out: what follows
either reads the norm alone, ‖Wp v‖ = ‖v‖, or has no permutation there.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from export.model.flow import CLAMP, CONDITION_DIMS
from train.loop.flow_buffers import Buffers, Permutation
from train.loop.normal import Normal
from train.loop.parameters import BlockWeights, Stacked, place, scale_of, stack

HALF_CODE = CONDITION_DIMS // 2


class Codes(NamedTuple):
    """The condition's two halves, a table each: (w, C/2) by column and (h, C/2) by row; tiles have theirs in turn."""

    column: Tensor
    row: Tensor


class Where(NamedTuple):
    """The grid positions (N,) of a fiber batch."""

    rows: Tensor
    columns: Tensor


class Stage:
    """Blocks of D channels, whose parameters become views of the vector `parameters`; their gradient is `gradient`."""

    def __init__(self, blocks: Sequence[nn.Module], parameters: Tensor, gradient: Tensor, codes: Codes) -> None:
        self.channels = blocks[0].get_parameter("global_scale").shape[1]
        self.slope = 1.0 if blocks[0].soft_clamp == "tanh(a)" else 1 / CLAMP  # of the clamp's argument
        self._parameters, self._gradient, self._codes = parameters, gradient, codes
        self._stacked = place(blocks, parameters)
        self._d_stacked = stack(gradient, self._stacked)
        half = self.channels // 2
        self._conditional = self._stacked.weight1.shape[2] > half
        self._weights, self._gradients = BlockWeights.of(self._stacked, half), BlockWeights.of(self._d_stacked, half)
        self.permutations = [Permutation(block.w_perm.data) for block in blocks if block.w_perm is not None]  # type: ignore[arg-type]
        self._products: dict[torch.dtype, _Products] = {}
        self._buffers: dict[tuple[int, torch.dtype], Buffers] = {}

    def forward(self, x: Tensor, where: Where, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Map x (N, D) to v (N, D) and log|det| (N,); products are computed in `dtype`.

        What `backward` needs is kept until the next call.
        """
        self._where, self._dtype = where, dtype
        self._at, products = self._buffers_for(len(x)), self._rounded_parameters()
        buffers = self._at
        self._look_up(buffers)
        self._gains = 0.1 * F.softplus(self._stacked.scale, beta=0.5)  # (K, D)
        log_scale = buffers.half.zero_()
        buffers.blocks[0].x.whole.copy_(x)
        buffers.blocks[0].x.lower()
        last = len(buffers.blocks) - 1
        for k, (at, weights) in enumerate(zip(buffers.blocks, products.weights, strict=True)):
            at.hidden.addmm_(at.x1_low, weights.weight1.t()).relu_()
            torch.addmm(weights.bias2, at.hidden, weights.weight2.t(), beta=0.1, alpha=0.1, out=at.subnet.low)
            at.subnet.take()
            if self.slope != 1:
                at.bounded.mul_(self.slope)
            log_scale.add_(at.bounded.tanh_())
            torch.mul(at.bounded, CLAMP, out=at.scale).exp_()
            at.y1.copy_(at.x1)
            torch.addcmul(at.shift, at.x2, at.scale, out=at.y2)
            torch.addcmul(self._weights[k].offset, at.y, self._gains[k], out=buffers.affine.whole)
            if k < last:
                self.permutations[k].forward(buffers.affine, buffers.blocks[k + 1].x)
        return buffers.affine.whole, CLAMP * log_scale.sum(1) + self._gains.log().sum()

    def backward(self, weight: Tensor, inner: Tensor | None, to_input: bool) -> Tensor:
        """Write the gradient of a loss into the vector, once per `forward`, in whose buffers it works.

        `weight` (N, 1) is the loss's derivative by the log-determinant, and by -½‖v‖², where v ends here: `inner`
        (N, D/2) is the derivative by the first half of v where that goes on. What is returned is the derivative by x,
        where `to_input` asks for it.
        """
        buffers, products = self._at, self._products[self._dtype]
        slope = 0.1 * CLAMP * self.slope
        dx, dv, da = buffers.dx, buffers.dv, buffers.da
        last = len(buffers.blocks) - 1
        torch.mul(buffers.affine.whole, weight, out=dv.whole).neg_()
        if inner is not None:
            dv.whole[:, : inner.shape[1]] = inner
        for k in range(last, -1, -1):
            at, weights, written = buffers.blocks[k], products.weights[k], products.gradients[k]
            if k < last:
                self.permutations[k].backward(dx, dv)
            torch.sum(dv.whole, 0, out=self._gradients[k].offset)
            torch.sum(at.y.mul_(dv.whole), 0, out=self._gradients[k].scale)
            torch.mul(dv.whole, self._gains[k], out=dx.whole)  # dy
            dx2 = torch.mul(buffers.dx2, at.scale, out=buffers.half)
            torch.mul(buffers.dx2, 0.1, out=buffers.da_shift)
            torch.addcmul(weight, dx2, at.x2, out=buffers.da_scale)
            buffers.da_scale.mul_(at.bounded.square_().mul_(-slope).add_(slope))  # 1 - tanh²
            torch.mm(da.lower().t(), at.hidden, out=written.weight2)
            torch.sum(da.whole, 0, out=self._gradients[k].bias2)
            torch.mm(da.low, weights.weight2, out=buffers.dh)
            torch.ops.aten.threshold_backward(buffers.dh, at.hidden, 0, grad_input=at.hidden)  # where h > 0
            torch.mm(at.hidden.t(), at.x1_low, out=written.weight1)
            if k or to_input:
                dx.lower()
                buffers.dx1_low.addmm_(at.hidden, weights.weight1)
                buffers.dx2_low.copy_(dx2)
        products.take_gradient(self._d_stacked)
        self._d_stacked.scale.add_(weight.sum() / self._gains).mul_(0.1 * torch.sigmoid(0.5 * self._stacked.scale))
        torch.sum(buffers.hidden, 0, dtype=self._gradient.dtype, out=self._d_stacked.bias1.view(-1))
        self._condition_gradient(buffers)
        dx.take()
        return dx.whole

    def begin_as_identity(self) -> None:
        """Let the couplings and affines change nothing: the subnets' last layers are zero.

        As Glow's (Kingma and Dhariwal 2018, section 3.3).
        """
        for whole in (self._stacked.weight2, self._stacked.bias2, self._stacked.offset):
            whole.zero_()
        self._stacked.scale.copy_(scale_of(torch.ones_like(self._stacked.scale)))

    def begin_as(self, normal: Normal, goes_on: bool) -> None:
        """Make v white where x is distributed as `normal`; `goes_on`: other blocks map the first half of v.

        The first block's affine standardises the channels, the first permutation turns to the principal axes, and the
        second block's affine makes the fibers white. The two halves have like shares of variance; where the second one
        leaves, it has the axes of least variance, along which features are nearest to normal. A hard permutation turns
        nothing, and a single block is followed by none: then the channels are independent.
        """
        self.begin_as_identity()
        self._weights[0].scale.copy_(scale_of(1 / normal.deviations))
        self._weights[0].offset.copy_(-normal.mean / normal.deviations)
        if len(self._weights) > 1 and not self.permutations[0].hard:
            rising = torch.arange(self.channels)  # as the variances do
            order = rising.flip(0) if goes_on else torch.cat([rising[::2], rising[1::2]])
            self.permutations[0].matrix.copy_(normal.axes[order])
            self._weights[1].scale.copy_(scale_of(normal.variances[order].rsqrt()))

    def _look_up(self, buffers: Buffers) -> None:
        """Fill the hidden units of all blocks with what they get beside x1: condition and bias."""
        bias = self._stacked.bias1.view(-1)
        if not self._conditional:
            buffers.hidden.copy_(bias.expand_as(buffers.hidden))
            return
        by_column, by_row = self._condition_weights(self._stacked)
        code, places = _fewer(self._codes.column, self._where.columns)
        columns = torch.addmm(bias, code, by_column.t()).to(self._dtype)
        torch.index_select(columns, 0, places, out=buffers.hidden)
        code, places = _fewer(self._codes.row, self._where.rows)
        rows = (code @ by_row.t()).to(self._dtype)
        buffers.hidden.add_(torch.index_select(rows, 0, places, out=buffers.looked_up))

    def _condition_gradient(self, buffers: Buffers) -> None:
        if not self._conditional:
            return
        by_column, by_row = self._condition_weights(self._d_stacked)
        hidden = buffers.hidden.to(self._gradient.dtype)
        for table, positions, out in (
            (self._codes.column, self._where.columns, by_column),
            (self._codes.row, self._where.rows, by_row),
        ):
            code, places = _fewer(table, positions)
            sums = code.new_zeros(len(code), hidden.shape[1]).index_add_(0, places, hidden)
            out.copy_(sums.t() @ code)

    def _condition_weights(self, stacked: Stacked) -> tuple[Tensor, Tensor]:
        """Return the columns of all W1 that read the condition's two halves, each (K·L, 64)."""
        start = self.channels // 2
        weight = stacked.weight1.flatten(0, 1)
        return weight[:, start : start + HALF_CODE], weight[:, start + HALF_CODE :]

    def _buffers_for(self, fibers: int) -> Buffers:
        key = (fibers, self._dtype)
        if key not in self._buffers:
            blocks, units = self._stacked.bias1.shape
            self._buffers[key] = Buffers(self._parameters, fibers, self.channels, (blocks, units), self._dtype)
        return self._buffers[key]

    def _rounded_parameters(self) -> "_Products":
        if self._dtype not in self._products:
            own = self._dtype == self._parameters.dtype
            flat, gradient = (
                tensor if own else torch.zeros_like(tensor, dtype=self._dtype)
                for tensor in (self._parameters, self._gradient)
            )
            self._products[self._dtype] = _Products.of(flat, gradient, self._stacked)
        products = self._products[self._dtype]
        if products.flat is not self._parameters:
            products.flat.copy_(self._parameters)
        return products


def _fewer(table: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Return a table and where `positions` (N,) stand in it: of one with more rows than N, a copy of those alone.

    The tables of a frame of many tiles are long, and every step multiplies all that they have.
    """
    if len(table) <= len(positions):
        return table, positions
    return table.index_select(0, positions), torch.arange(len(positions), device=positions.device)


class _Products(NamedTuple):
    """The parameters as products read them, and the gradients as products write them: the flow's own, or rounded."""

    flat: Tensor
    weights: list[BlockWeights]
    gradients: list[BlockWeights]
    written: Stacked  # gradients of all blocks

    @classmethod
    def of(cls, flat: Tensor, gradient: Tensor, like: Stacked) -> "_Products":
        half = like.scale.shape[1] // 2
        written = stack(gradient, like)
        return cls(flat, BlockWeights.of(stack(flat, like), half), BlockWeights.of(written, half), written)

    def take_gradient(self, stacked: Stacked) -> None:
        """Copy what products wrote into `stacked`, where it is not there already."""
        for own, written in ((stacked.weight1, self.written.weight1), (stacked.weight2, self.written.weight2)):
            if own.dtype != written.dtype:
                own.copy_(written)
