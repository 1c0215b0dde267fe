"""What a step of training computes in: the buffers of one fiber batch, the permutations, and rounded copies.

Only the matrix products are ever computed in bfloat16, from rounded copies of what they read: its 8 bits round each
factor by at most 2^-9, the sums are the processor's own float32. All else, and the parameters, stay float32.
"""

import torch
from torch import Tensor


class Rounded:
    """A float32 tensor `whole` and what products read of it or write for it, `low`: itself, or a copy in their type."""

    def __init__(self, whole: Tensor, dtype: torch.dtype) -> None:
        self.whole = whole
        self.low = whole if dtype == whole.dtype else torch.empty_like(whole, dtype=dtype)

    def lower(self) -> Tensor:
        """Round `whole` into `low` and return that."""
        if self.low is not self.whole:
            self.low.copy_(self.whole)
        return self.low

    def take(self) -> None:
        """Take what products wrote into `low`."""
        if self.low is not self.whole:
            self.whole.copy_(self.low)


class AtBlock:
    """What one block reads and leaves for its gradient; halves are views of their whole."""

    def __init__(self, like: Tensor, fibers: int, channels: int, hidden: Tensor) -> None:
        half = channels // 2
        self.x, self.subnet = (Rounded(like.new_empty(fibers, channels), hidden.dtype) for _ in range(2))
        self.y = like.new_empty(fibers, channels)
        self.hidden = hidden  # (N, L), in the products' type; after `backward` its gradient
        self.scale = like.new_empty(fibers, half)  # e^s
        self.x1_low = self.x.low[:, :half]
        self.x1, self.x2 = self.x.whole[:, :half], self.x.whole[:, half:]
        self.y1, self.y2 = self.y[:, :half], self.y[:, half:]
        self.bounded, self.shift = self.subnet.whole[:, :half], self.subnet.whole[:, half:]  # tanh, t


class Buffers:
    """What fiber batches of one size need, kept from step to step: N fibers, D channels, K blocks, L hidden units.

    Products read and write `dtype`.
    """

    def __init__(self, like: Tensor, fibers: int, channels: int, shape: tuple[int, int], dtype: torch.dtype) -> None:
        half, (blocks, units) = channels // 2, shape
        self.hidden, self.looked_up = (like.new_empty(fibers, blocks * units, dtype=dtype) for _ in range(2))
        self.blocks = [AtBlock(like, fibers, channels, part) for part in torch.split(self.hidden, units, dim=1)]
        self.affine, self.dx, self.dv, self.da = (Rounded(like.new_empty(fibers, channels), dtype) for _ in range(4))
        self.dx1_low, self.dx2_low = self.dx.low[:, :half], self.dx.low[:, half:]
        self.dx2 = self.dx.whole[:, half:]
        self.da_scale, self.da_shift = self.da.whole[:, :half], self.da.whole[:, half:]
        self.dh = like.new_empty(fibers, units, dtype=dtype)
        self.half = like.new_empty(fibers, half)


class Permutation:
    """x Wpᵀ and its gradient; an index where Wp is a permutation matrix, which is no arithmetic at all."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix
        self.hard = bool(((matrix == 0) | (matrix == 1)).all())
        self.index, self.inverse = matrix.argmax(1), matrix.argmax(0)

    def forward(self, x: Rounded, out: Rounded) -> None:
        """Write x Wpᵀ, (N, D), into `out`."""
        if self.hard:
            torch.index_select(x.whole, 1, self.index, out=out.whole)
            out.lower()
        else:
            torch.mm(x.lower(), self.matrix.to(x.low.dtype).t(), out=out.low)
            out.take()

    def backward(self, gradient: Rounded, out: Rounded) -> None:
        """Write the gradient by x into `out`; that by x Wpᵀ is `gradient.low`."""
        if self.hard:
            torch.index_select(gradient.low, 1, self.inverse, out=out.low)
        else:
            torch.mm(gradient.low, self.matrix.to(gradient.low.dtype), out=out.low)
        out.take()
