"""One tap's share of training: the optimisation steps that an image batch's fibers give its decoder."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from export.model.flow import Decoder
from train.loop.flow_gradient import WHOLE, FlowGradient, Origins
from train.loop.processes import Processes

CHUNK = 4096  # fibers evaluated at a time: bounds the memory
LARGEST_GRADIENT = 1.0  # its norm; nearly all healthy steps stay below, one that goes astray has hundreds
OF_PLACE = 2.5  # with the usual share, 0.2, noise is at most half of what a place varies by itself


@dataclass(frozen=True, eq=False)
class Fibers:
    """One tap's feature vectors over an image batch, (N, D), and the order to take them in, (N,).

    Each is taken with noise from `generator`, of the deviation `noise` (P, D) at its place in the grid (`noise_of`).
    `places` (B, 2) are the (row, column) of the images among the tiles of their frames; None for whole images.
    """

    values: Tensor
    order: Tensor
    noise: Tensor | None = None
    generator: torch.Generator | None = None
    places: Tensor | None = None

    @classmethod
    def shuffled(
        cls,
        values: Tensor,
        positions: int,
        noise: float,
        generator: torch.Generator,
        most: int | None = None,
        places: Tensor | None = None,
    ) -> "Fibers":
        """Return `most` of the features (N, D) of images of so many positions, in an order that `generator` draws."""
        order = torch.randperm(len(values), generator=generator, device=generator.device)
        return cls(values, order[:most], noise_of(values, positions, noise), generator, places)

    def take(self, part: slice) -> Tensor:
        """Return those that the order has at `part`, (n, D)."""
        order = self.order[part]
        chosen = self.values.index_select(0, order)
        if self.noise is None:
            return chosen
        drawn = torch.randn(chosen.shape, generator=self.generator, dtype=chosen.dtype, device=chosen.device)
        return chosen.addcmul_(drawn, self.noise.index_select(0, order % len(self.noise)))


def noise_of(values: Tensor, positions: int, share: float) -> Tensor | None:
    """Return the deviation of the noise for each place and channel, (positions, D); None for no noise.

    It is `share` of the channel's deviation over all places and images, and nowhere more than `OF_PLACE` times `share`
    of the one at its place over the images. `values` (N, D) are whole images in grid order. With noise a flow cannot
    make ever sharper what few images show, so that good ones which it has not seen fall through. The bound is there
    because where all images show the same, any noise would be a defect.
    """
    if not share:
        return None
    of_places = values.view(-1, positions, values.shape[1]).std(0, correction=0)
    return share * torch.minimum(values.std(0, correction=0), OF_PLACE * of_places)


class TapTraining:
    """Fits `decoder` to the fibers of a tap whose grid is (height, width), by Adam; `origins` where it is of tiles.

    Its products are computed in the type `products`, None for the parameters' own; what `log_likelihood` says is not.
    A gradient longer than `LARGEST_GRADIENT` is made that long, and a step whose gradient is not finite is not taken.
    """

    def __init__(
        self,
        decoder: Decoder,
        grid: tuple[int, int],
        learning_rate: float,
        products: torch.dtype | None = None,
        origins: Origins = WHOLE,
    ) -> None:
        self.products = products
        self.flow = FlowGradient(decoder, *grid, origins)
        self.grid = grid
        self.positions = grid[0] * grid[1]
        self._vector = nn.Parameter(self.flow.parameters)
        self._vector.grad = self.flow.gradient
        self.begin_anew(learning_rate)

    def begin_anew(self, learning_rate: float = 0.0) -> None:
        """Forget the averages that the optimiser has of earlier gradients."""
        self.optimizer = torch.optim.Adam([self._vector], lr=learning_rate, fused=True)
        self.steps = 0  # that it has seen

    def train(self, fibers: Fibers, steps: int, fiber_batch: int, rate: float, processes: Processes) -> Tensor:
        """Take `steps` of `fiber_batch` fibers each at learning rate `rate`; return the mean loss, on the device."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        rows, columns = self._grid_positions(fibers.order, fibers.places)
        total = fibers.values.new_zeros(())
        with torch.no_grad():
            for start in range(0, steps * fiber_batch, fiber_batch):
                part = slice(start, min(start + fiber_batch, len(fibers.order)))
                logp = self.flow.log_likelihood(fibers.take(part), rows[part], columns[part], self.products)
                total += nn.functional.softplus(-logp).mean()  # -logsigmoid(logp)
                self.flow.backward(torch.sigmoid(-logp) / -len(logp))
                processes.average(self.flow.gradient)
                self._step()
        self.steps += steps
        return total / steps

    def _step(self) -> None:
        """Take one step; its bound costs no pass over the gradient, because the fused Adam can divide and refuse."""
        norm = self.flow.gradient.norm().float()
        self.optimizer.grad_scale = (norm / LARGEST_GRADIENT).clamp_min(1)  # type: ignore[attr-defined]
        self.optimizer.found_inf = torch.isfinite(norm).logical_not().float()  # type: ignore[attr-defined]
        self.optimizer.step()

    def log_likelihood(self, fibers: Tensor, places: Tensor | None = None) -> Tensor:
        """Return the log-likelihoods (N,) of the fibers (N, D) of whole images, or tiles at `places`, in grid order."""
        rows, columns = self._grid_positions(torch.arange(len(fibers), device=fibers.device), places)
        parts = zip(*(torch.split(whole, CHUNK) for whole in (fibers, rows, columns)), strict=True)
        return torch.cat([self.flow.log_likelihood(*part) for part in parts])

    def _grid_positions(self, order: Tensor, places: Tensor | None) -> tuple[Tensor, Tensor]:
        position, (height, width) = order % self.positions, self.grid
        rows, columns = torch.div(position, width, rounding_mode="floor"), position % width
        if places is None:
            return rows, columns
        tile_rows, tile_columns = places[torch.div(order, self.positions, rounding_mode="floor")].unbind(1)
        return rows + height * tile_rows, columns + width * tile_columns
