"""A tap's optimisation steps against torch's Adam on autograd's gradient, and its judgement of whole images."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F

from export.model.cflow import CFlow, ModelConfig
from export.model.flow import log_likelihood, position_code
from tests.support.small_decoder import GRID, decoder_of
from train.loop.processes import one_process
from train.loop.tap_training import CHUNK, LARGEST_GRADIENT, Fibers, TapTraining, noise_of


def test_a_step_is_adams_on_autograds_bounded_gradient_and_leaves_an_incomplete_batch_out() -> None:
    decoder = decoder_of()
    reference = copy.deepcopy(decoder)
    fibers = torch.randn(70, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3))  # two images
    order = torch.randperm(70, generator=torch.Generator().manual_seed(4))
    optimizer = torch.optim.Adam([p for p in reference.parameters() if p.requires_grad], lr=1e-2)
    losses, norms = [], []
    for start in (0, 32):
        chosen = order[start : start + 32]
        code = position_code(*GRID).double().flatten(0, 1)[chosen % 35]
        loss = -F.logsigmoid(log_likelihood(*reference(fibers[chosen], code))).mean()
        optimizer.zero_grad()
        loss.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(reference.parameters(), LARGEST_GRADIENT)))
        optimizer.step()
        losses.append(loss.item())
    tap = TapTraining(decoder, GRID, 1e-3)
    mean = tap.train(Fibers(fibers, order), 2, 32, 1e-2, one_process())
    assert max(norms) > LARGEST_GRADIENT  # else this would hold without the bound
    assert float(mean) == pytest.approx(math.fsum(losses) / 2, rel=1e-6)  # the bound is a float32
    for (name, ours), theirs in zip(decoder.named_parameters(), reference.parameters(), strict=True):
        # Adam divides by the gradient's own size, which magnifies rounding where it is small
        torch.testing.assert_close(ours.data, theirs.data, rtol=1e-5, atol=1e-7, msg=name)


def test_a_step_whose_gradient_is_not_finite_is_not_taken() -> None:
    tap = TapTraining(decoder_of(), GRID, 1e-3)
    fibers = torch.randn(64, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    fibers[:32, 0] = math.inf
    before = tap.flow.parameters.clone()
    order = torch.arange(64)
    assert not math.isfinite(float(tap.train(Fibers(fibers, order), 1, 32, 1e-2, one_process())))
    assert torch.equal(tap.flow.parameters, before)
    tap.train(Fibers(fibers[32:], order[:32]), 1, 32, 1e-2, one_process())  # the next one is
    assert torch.isfinite(tap.flow.parameters).all() and not torch.equal(tap.flow.parameters, before)


def test_whole_images_are_judged_in_chunks() -> None:
    decoder = decoder_of(blocks=1)
    tap = TapTraining(decoder, GRID, 1e-3)
    count = 35 * (CHUNK // 35 + 2)
    fibers = torch.randn(count, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    code = position_code(*GRID).double().flatten(0, 1).repeat(count // 35, 1)
    expected = log_likelihood(*decoder(fibers, code)).detach()
    torch.testing.assert_close(tap.log_likelihood(fibers), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("conditional", [True, False])
def test_positions_are_those_of_the_detector(conditional: bool) -> None:
    """Rows and columns are not exchanged, over several images of a grid that is not square."""
    model = CFlow(ModelConfig("resnet18", ("layer2",), (40, 72), coupling_blocks=2, conditional=conditional)).double()
    features = torch.randn(3, 128, 5, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    fibers, condition = model.fibers(features, 0)
    decoder = model.decoders[0]
    expected = log_likelihood(*decoder(fibers, condition)).detach()
    ours = TapTraining(decoder, (5, 9), 1e-3).log_likelihood(fibers)
    # soft permutations are drawn in float32, and the last one, which we leave out, changes the norm by its rounding
    torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-6)


def test_noise_is_a_share_of_a_channels_deviation_bounded_by_its_places_and_drawn_by_its_generator() -> None:
    draw = torch.Generator().manual_seed(3)
    spread = torch.rand(35, 8, generator=draw).double() * torch.arange(8)  # a place and channel
    middle = 9 * torch.randn(35, 8, dtype=torch.float64, generator=draw)  # places differ by far more than one varies
    middle[:, :4] = 5  # but for these channels
    values = (middle + spread * torch.randn(1000, 35, 8, dtype=torch.float64, generator=draw)).flatten(0, 1)
    order = torch.randperm(len(values), generator=draw)
    noise = noise_of(values, 35, 0.2)
    assert noise is not None
    of_all = 0.2 * (spread.square().mean(0) + middle.var(0, correction=0)).sqrt()
    expected = torch.minimum(of_all, 0.5 * spread)
    assert ((expected == of_all).sum(0)[1:4] > 0).all() and (expected == 0.5 * spread)[:, 4:].sum() > 50  # both occur
    torch.testing.assert_close(noise, expected, rtol=0.1, atol=0)  # of 1000 images: 2 %

    def taken(seed: int) -> torch.Tensor:
        return Fibers(values, order, noise, torch.Generator().manual_seed(seed)).take(slice(0, len(values)))

    added = torch.empty_like(values).index_copy_(0, order, taken(1) - values[order]).view(1000, 35, 8)
    torch.testing.assert_close(added.std(0), noise, rtol=0.15, atol=0)
    assert torch.equal(added[..., 0], torch.zeros(1000, 35, dtype=torch.float64))  # what never changes stays as it is
    assert torch.equal(taken(1), taken(1)) and not torch.equal(taken(1), taken(2))
    assert torch.equal(Fibers(values, order).take(slice(5, 9)), values[order[5:9]])
    assert noise_of(values, 35, 0.0) is None
