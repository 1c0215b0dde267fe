"""The hand-derived likelihood and gradient against FrEIA's blocks under autograd, in float64."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from export.model.encoder import ENCODERS
from export.model.flow import Decoder, log_likelihood, position_code
from tests.support.small_decoder import GRID, batch_of, decoder_of
from train.loop.flow_gradient import FlowGradient
from train.loop.normal import fit_normal


def by_autograd(decoder: Decoder, fibers: Tensor, rows: Tensor, columns: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    code = position_code(*GRID).double()[rows, columns]
    conditional = decoder.blocks[0].subnet[0].in_features > decoder.dims // 2
    logp = log_likelihood(*decoder(fibers, code if conditional else None))
    decoder.zero_grad()
    (-F.logsigmoid(logp).mean()).backward()
    return logp.detach(), {name: p.grad for name, p in decoder.named_parameters() if p.grad is not None}


def gradients_by_name(flow: FlowGradient, decoder: Decoder) -> dict[str, Tensor]:
    """Read each parameter's gradient where the parameter lies in the common vector."""
    start = flow.parameters.data_ptr()
    found = {}
    for name, parameter in decoder.named_parameters():
        if parameter.requires_grad:
            offset = (parameter.data_ptr() - start) // parameter.element_size()
            found[name] = flow.gradient[offset : offset + parameter.numel()].view_as(parameter)
    return found


@pytest.mark.parametrize("clamp", ["tanh(a)", "tanh(a/c)"])
@pytest.mark.parametrize("soft", [True, False])
@pytest.mark.parametrize("conditional", [True, False])
@pytest.mark.parametrize("factored", [False, True])
@pytest.mark.parametrize("blocks", [1, 2, 8])
def test_likelihood_and_gradient_are_autograds(blocks, factored, conditional, soft, clamp) -> None:
    decoder = decoder_of(blocks=blocks, conditional=conditional, soft=soft, clamp=clamp, factored=factored)
    fibers, rows, columns = batch_of(8)
    expected, gradients = by_autograd(copy.deepcopy(decoder), fibers, rows, columns)
    flow = FlowGradient(decoder, *GRID)
    logp = flow.log_likelihood(fibers, rows, columns)
    # float64 in another order of operations; the position code is float32 on both sides
    torch.testing.assert_close(logp, expected, rtol=1e-12, atol=1e-12)
    flow.backward(torch.sigmoid(-logp) / -len(logp))
    ours = gradients_by_name(flow, decoder)
    assert ours.keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(ours[name], gradient, rtol=1e-9, atol=1e-13, msg=name)


@pytest.mark.parametrize("soft", [True, False])
@pytest.mark.parametrize("conditional", [True, False])
@pytest.mark.parametrize("factored", [False, True])
def test_rounded_products_stay_near_the_exact_ones(factored, conditional, soft) -> None:
    """bfloat16 rounds each factor by 2^-9 = 0.2 %; these blocks, whose weights are large, make it ten times as much."""
    decoder = decoder_of(blocks=3, conditional=conditional, soft=soft, factored=factored)
    fibers, rows, columns = batch_of(8)
    expected, gradients = by_autograd(copy.deepcopy(decoder), fibers, rows, columns)
    flow = FlowGradient(decoder, *GRID)
    logp = flow.log_likelihood(fibers, rows, columns, torch.bfloat16)
    torch.testing.assert_close(logp, expected, rtol=0.05, atol=0.05)
    assert not torch.equal(logp, expected)
    flow.backward(torch.sigmoid(-logp) / -len(logp))
    ours = gradients_by_name(flow, decoder)
    for name, gradient in gradients.items():
        assert (ours[name] - gradient).norm() < 0.1 * gradient.norm(), name
    torch.testing.assert_close(flow.log_likelihood(fibers, rows, columns), expected, rtol=1e-12, atol=1e-12)


def test_every_taps_channels_split_into_equal_halves() -> None:
    """What the views of halves rely on."""
    assert not [name for name, spec in ENCODERS.items() for tap in spec.taps.values() if tap.channels % 2]


def test_batches_of_different_sizes_do_not_disturb_each_other() -> None:
    flow = FlowGradient(decoder_of(), *GRID)
    fibers, rows, columns = batch_of(8)
    first = flow.log_likelihood(fibers, rows, columns)
    flow.log_likelihood(fibers[:3], rows[:3], columns[:3])
    assert torch.equal(flow.log_likelihood(fibers, rows, columns), first)


def test_parameters_stay_views_of_the_vector_through_a_step_and_a_loaded_state() -> None:
    decoder = decoder_of()
    flow = FlowGradient(decoder, *GRID)
    state = {name: value + 1 for name, value in decoder.state_dict().items()}
    decoder.load_state_dict(state)
    flow.parameters += 1
    for name, parameter in decoder.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(parameter.data, state[name] + 1)


@pytest.mark.parametrize("factored", [False, True])
@pytest.mark.parametrize("count", [2000, 6])  # 6: fewer than channels
def test_the_start_says_of_every_fiber_what_the_normal_distribution_says(count: int, factored: bool) -> None:
    generator = torch.Generator().manual_seed(4)
    mixed = torch.randn(8, 8, dtype=torch.float64, generator=generator)
    fibers = torch.randn(count, 8, dtype=torch.float64, generator=generator) @ mixed + 3
    fibers[:, 1] = 0.25  # a dead channel
    rows, columns = (torch.randint(0, side, (count,), generator=generator) for side in GRID)
    normal = fit_normal(fibers)
    for soft in (True, False):
        decoder = decoder_of(soft=soft, factored=factored)
        flow = FlowGradient(decoder, *GRID)
        flow.begin_as(normal)
        found = flow.log_likelihood(fibers, rows, columns)
        code = position_code(*GRID).double()[rows, columns]
        torch.testing.assert_close(log_likelihood(*decoder(fibers, code)), found)  # the detector has the same axes
        if soft:
            spread = normal.axes.T * normal.variances @ normal.axes * normal.deviations * normal.deviations[:, None]
            expected = torch.distributions.MultivariateNormal(normal.mean, spread).log_prob(fibers) / 8
            torch.testing.assert_close(found, expected)
        else:  # turns nothing: channels are independent
            alone = torch.distributions.Normal(normal.mean, normal.deviations).log_prob(fibers).mean(1)
            torch.testing.assert_close(found, alone)


@pytest.mark.parametrize("factored", [False, True])
def test_a_start_that_is_a_normal_distribution_learns_in_all_its_layers(factored: bool) -> None:
    flow = FlowGradient(decoder_of(factored=factored), *GRID)
    fibers, rows, columns = batch_of(8, 200)
    flow.begin_as(fit_normal(fibers))
    before = flow.parameters.clone()
    vector = torch.nn.Parameter(flow.parameters)
    vector.grad = flow.gradient
    adam = torch.optim.Adam([vector], lr=1e-3)
    for _ in range(3):  # the first moves the couplings' last layers, which hold the gradient of the others back
        flow.log_likelihood(fibers, rows, columns)
        flow.backward(torch.full((200,), -1 / 200, dtype=torch.float64))
        adam.step()
    moved = (flow.parameters != before).double()
    assert float(moved.mean()) > 0.8  # hidden units that are never above 0 do not learn
