"""Conditional normalizing flow over one tap's feature vectors: FrEIA coupling blocks and their condition.

Equations: Gudovskiy et al., "CFLOW-AD" (WACV 2022), section 4; block structure: FrEIA 0.2 `AllInOneBlock`
(one affine coupling, a global affine, an orthogonal permutation). Half of the channels may be factored out after the
first blocks, as in Dinh et al., "Density estimation using Real NVP" (ICLR 2017), section 3.6: they are normal by
then, given the other half, and the blocks that follow cost a quarter.
"""

import math
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from FrEIA.modules import AllInOneBlock
from torch import Tensor, nn

CONDITION_DIMS = 128
CLAMP = 1.9
FACTORED_AFTER = 2  # blocks: the first turns to the principal axes, the second makes half of the channels normal
Clamp = Literal["tanh(a)", "tanh(a/c)"]


def position_code(height: int, width: int, dims: int = CONDITION_DIMS, origin: tuple[float, float] = (0, 0)) -> Tensor:
    """Return the condition vectors of a grid, (height, width, dims), float32.

    The first half of the channels encodes the column w, the second the row h; even channels are
    sin(p·f_j), odd ones cos(p·f_j), f_j = exp(-ln(10^4)·2j/(dims/2)). `origin` is the (row, column) that the grid
    begins at, in positions and parts of them: of a tile, its place in the frame.
    """
    half = dims // 2
    frequency = torch.exp(torch.arange(0, half, 2, dtype=torch.float64) * -(math.log(1e4) / half))

    def encode(count: int, first: float) -> Tensor:
        phase = (first + torch.arange(count, dtype=torch.float64))[:, None] * frequency
        return torch.stack([phase.sin(), phase.cos()], dim=-1).flatten(1)  # (count, half)

    columns = encode(width, origin[1])[None].expand(height, width, half)
    rows = encode(height, origin[0])[:, None].expand(height, width, half)
    return torch.cat([columns, rows], dim=-1).float()


def paper_units(dims: int, condition_dims: int) -> int:
    """Return the hidden units of the paper's subnet in a block of `dims` channels: twice what it reads."""
    return 2 * (dims - dims // 2 + condition_dims)


def hidden_units_of(dims: int, condition_dims: int, factored: bool) -> int:
    """Return the hidden units of a block's subnet where nothing else is asked for: the paper's.

    In a decoder that factors out at most twice its channels: of the paper's, most are for the condition.
    """
    units = paper_units(dims, condition_dims)
    return min(units, 2 * dims) if factored else units


def _subnet(dims_in: int, dims_out: int, units: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dims_in, units), nn.ReLU(), nn.Linear(units, dims_out))


def orthogonal_matrix(dims: int, generator: torch.Generator) -> Tensor:
    """Draw a (dims, dims) orthogonal matrix from the Haar distribution by QR of a Gaussian matrix.

    The same distribution as scipy's `special_ortho_group` up to the sign of the determinant, which no
    likelihood sees, in a fraction of its time. The signs of R's diagonal make it uniform.
    """
    q, r = torch.linalg.qr(torch.randn(dims, dims, generator=generator))
    uniform: Tensor = q * r.diagonal().sign()
    return uniform


def permutation_matrix(dims: int, generator: torch.Generator) -> Tensor:
    """Draw a (dims, dims) permutation matrix."""
    return torch.eye(dims)[torch.randperm(dims, generator=generator)]


class CouplingBlock(AllInOneBlock):  # type: ignore[misc]
    """FrEIA's `AllInOneBlock` with its soft clamp named, because releases that all say 0.2 differ in it.

    "tanh(a)" is the released one (c·tanh(a)), "tanh(a/c)" that of later sources (c·tanh(a/c)). Its subnet has
    `units` hidden units. No `permutation`: the channels stay in their order.
    """

    def __init__(self, dims: int, condition_dims: int, clamp: Clamp, permutation: Tensor | None, units: int) -> None:
        conditions = [(condition_dims,)] if condition_dims else []
        super().__init__(
            [(dims,)],
            dims_c=conditions,
            subnet_constructor=partial(_subnet, units=units),
            affine_clamping=CLAMP,
            global_affine_type="SOFTPLUS",
            permute_soft=False,  # a soft one by FrEIA takes minutes at 2048 channels; ours is set below
        )
        self.soft_clamp = clamp
        del self.w_perm_inv  # its transpose; half of a decoder's memory at 2048 channels
        if permutation is None:
            del self.w_perm
            self.register_parameter("w_perm", None)
        else:
            self.w_perm.data = permutation

    def _permute(self, x: Tensor, rev: bool = False) -> tuple[Tensor, Tensor]:
        scale = self.global_scale_activation(self.global_scale)
        matrix = self.w_perm
        if rev:
            unpermuted = x if matrix is None else F.linear(x, matrix.T)
            return (unpermuted - self.global_offset) / scale, scale.log().sum()
        x = x * scale + self.global_offset
        return x if matrix is None else F.linear(x, matrix), scale.log().sum()

    def _affine(self, x: Tensor, a: Tensor, rev: bool = False) -> tuple[Tensor, Tensor]:
        a = a * 0.1
        half = x.shape[1]
        pre = a[:, :half]
        s = CLAMP * torch.tanh(pre if self.soft_clamp == "tanh(a)" else pre / CLAMP)
        t = a[:, half:]
        if rev:
            return (x - t) * torch.exp(-s), -s.sum(dim=1)
        return x * torch.exp(s) + t, s.sum(dim=1)


class Decoder(nn.Module):
    """A chain of coupling blocks that maps feature vectors to a standard normal.

    0 `condition_dims`: unconditional. A `factored` one begins with `FACTORED_AFTER` blocks more, after which the second
    half of the channels leaves the chain: `blocks` map the first half. `hidden_units` are those of a block that maps
    all channels, 0: `hidden_units_of`; the others have half of them.
    """

    def __init__(
        self,
        dims: int,
        blocks: int,
        *,
        condition_dims: int = CONDITION_DIMS,
        clamp: Clamp = "tanh(a)",
        soft_permutation: bool = True,
        hidden_units: int = 0,
        factored: bool = False,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.dims = dims
        self.wide_blocks = FACTORED_AFTER if factored else blocks
        draw = orthogonal_matrix if soft_permutation else permutation_matrix
        made = []
        units = hidden_units or hidden_units_of(dims, condition_dims, factored)
        for index in range(FACTORED_AFTER + blocks if factored else blocks):
            share = 1 if index < self.wide_blocks else 2
            is_followed = not factored or index + 1 != FACTORED_AFTER
            permutation = draw(dims // share, generator) if is_followed else None
            made.append(CouplingBlock(dims // share, condition_dims, clamp, permutation, units // share))
        self.blocks = nn.ModuleList(made)

    @property
    def stages(self) -> list[list[nn.Module]]:
        """The blocks of each width: one list, or those before half of the channels leave and those after."""
        blocks = list(self.blocks)
        return [stage for stage in (blocks[: self.wide_blocks], blocks[self.wide_blocks :]) if stage]

    def forward(self, x: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor]:
        """Map fibers (N, D) under conditions (N, C) to (u (N, D), log|det J| (N,))."""
        conditions = [] if condition is None else [condition]
        log_det_jacobian = x.new_zeros(())
        out: list[Tensor] = []
        for number, stage in enumerate(self.stages):
            if number:
                x, factored_out = torch.split(x, self.dims // 2, dim=1)
                out.append(factored_out)
            for block in stage:
                (x,), block_log_det = block([x], c=conditions)
                log_det_jacobian = log_det_jacobian + block_log_det
        return torch.cat([x, *out], dim=1) if out else x, log_det_jacobian


def log_likelihood(u: Tensor, log_det_jacobian: Tensor) -> Tensor:
    """Return the log-likelihood in nats per dimension, (N,), of fibers mapped to `u` (N, D).

    (-D/2·ln 2π - ½‖u‖² + log|det J|) / D: the paper's equation 4 divided by D.
    """
    dims = u.shape[1]
    return (log_det_jacobian - 0.5 * (u * u).sum(dim=1) - 0.5 * dims * math.log(2 * math.pi)) / dims
