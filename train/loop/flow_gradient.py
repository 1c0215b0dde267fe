"""A decoder's log-likelihood and its gradient, derived by hand: what one optimisation step of training costs.

The steps of the recipe are small (256 fibers), so that an autograd graph of FrEIA's blocks spends most of its
time around the matrix products. Here the same mathematics is one fixed sequence of operations on buffers made
once (`Stage`), with less of it:

    W1 [x1; c] + b1 = W1x x1 + row(h) + col(w)    the condition is [code(w); code(h)]: two small tables for all
                                                  blocks at once, looked up by position; the same backwards
    the last permutation is left out              ‖Wp v‖ = ‖v‖, and only the norm is read
    no gradient for the first block's input       the encoder is frozen

Channels that are factored out count with their own norm, and the blocks that follow hand back the others' gradient.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from export.model.flow import Decoder, position_code
from train.loop.flow_stage import HALF_CODE, Codes, Stage, Where
from train.loop.normal import Normal
from train.loop.parameters import flatten

Origins = tuple[Sequence[float], Sequence[float]]
WHOLE: Origins = ((0,), (0,))


class FlowGradient:
    """Log-likelihoods of fibers under `decoder` (equal to its own up to rounding) and their gradient.

    The decoder's parameters become views of one vector `parameters`, whose gradient is the vector `gradient`:
    an optimiser, or a sum over several processes, sees one tensor. `height` and `width` are the tap's grid. Where
    inputs are tiles, `origins` are the first row of each row of tiles and the first column of each column of them, in
    positions of the frame; the positions of the tile in row i and column j then begin at row i·h and column j·w.
    """

    def __init__(self, decoder: Decoder, height: int, width: int, origins: Origins = WHOLE) -> None:
        self.channels = decoder.dims
        parts = [flatten(blocks) for blocks in decoder.stages]
        self.parameters = torch.cat(parts)
        self.gradient = torch.zeros_like(self.parameters)
        tops, lefts = origins
        columns = torch.cat([position_code(1, width, origin=(0, left))[0, :, :HALF_CODE] for left in lefts])
        rows = torch.cat([position_code(height, 1, origin=(top, 0))[:, 0, HALF_CODE:] for top in tops])
        codes = Codes(columns.to(self.parameters), rows.to(self.parameters))
        sizes = [len(part) for part in parts]
        views = zip(torch.split(self.parameters, sizes), torch.split(self.gradient, sizes), strict=True)
        self._stages = [Stage(blocks, *view, codes) for blocks, view in zip(decoder.stages, views, strict=True)]

    @property
    def first_permutation(self) -> Tensor:
        """The first block's permutation, (D, D): the decoder's own tensor."""
        return self._stages[0].permutations[0].matrix

    @torch.no_grad()
    def log_likelihood(self, fibers: Tensor, rows: Tensor, columns: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Return the log-likelihood (N,), nats per dimension, of fibers (N, D) at grid positions `rows`, `columns`.

        Products are computed in `dtype`, the parameters' own if none is named. What `backward` needs is kept until the
        next call.
        """
        x, log_det, norm = fibers, fibers.new_zeros(()), fibers.new_zeros(())
        for stage in self._stages:
            v, of_stage = stage.forward(x, Where(rows, columns), dtype or self.parameters.dtype)
            log_det = log_det + of_stage
            middle = 0 if stage is self._stages[-1] else stage.channels // 2
            x = v[:, :middle]
            norm = norm + v[:, middle:].square().sum(1)
        return (log_det - 0.5 * norm - 0.5 * self.channels * math.log(2 * math.pi)) / self.channels

    @torch.no_grad()
    def backward(self, gradient: Tensor) -> None:
        """Write the gradient of a loss into `self.gradient`, given its derivative (N,) by each log-likelihood.

        Once per call of `log_likelihood`: it works in that call's buffers.
        """
        weight = (gradient / self.channels)[:, None]
        inner: Tensor | None = None
        for stage in reversed(self._stages):
            inner = stage.backward(weight, inner, to_input=stage is not self._stages[0])

    @torch.no_grad()
    def begin_as(self, normal: Normal) -> None:
        """Make the flow the distribution `normal`: up to rounding it says the same of every fiber."""
        for stage in self._stages[1:]:
            stage.begin_as_identity()
        self._stages[0].begin_as(normal, goes_on=len(self._stages) > 1)
