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
@pytest.mark.parametrize("blocks", [1, 2, 8])
def test_likelihood_and_gradient_are_autograds(blocks, conditional, soft, clamp) -> None:
    decoder = decoder_of(blocks=blocks, conditional=conditional, soft=soft, clamp=clamp)
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


def test_the_standardised_start_gives_every_block_standard_outputs() -> None:
    decoder = decoder_of(dims=8, blocks=4)
    fibers, rows, columns = batch_of(8, 500)
    fibers = 0.05 * fibers + 3
    fibers[:, 1] = 0.25  # a dead channel, of the half that the first block leaves alone
    flow = FlowGradient(decoder, *GRID)
    flow.standardise(fibers, rows, columns)
    outputs = []
    for block in decoder.blocks:
        block.register_forward_hook(lambda module, inputs, out: outputs.append(out[0][0] @ module.w_perm))
    decoder(fibers, position_code(*GRID).double()[rows, columns])
    for index, output in enumerate(outputs):  # before its permutation
        torch.testing.assert_close(output.mean(0), torch.zeros(8, dtype=torch.float64), rtol=0, atol=1e-9)
        deviation = output.std(0)
        live = torch.ones(8, dtype=torch.bool)
        live[1] = index > 0
        # 1 but for channels of next to no deviation, which are not blown up to it
        assert (deviation[live] < 1 + 1e-9).all() and (deviation[live] > 0.5).any()
    assert outputs[0].std(0)[1] < 1e-9
    assert torch.isfinite(flow.log_likelihood(fibers, rows, columns)).all()


def test_the_start_is_about_as_likely_as_a_normal_distribution_with_full_covariance() -> None:
    generator = torch.Generator().manual_seed(4)
    mixed = torch.randn(8, 8, dtype=torch.float64, generator=generator)
    fibers = torch.randn(2000, 8, dtype=torch.float64, generator=generator) @ mixed + 3
    rows, columns = (torch.randint(0, side, (2000,), generator=generator) for side in GRID)
    normal = torch.distributions.MultivariateNormal(fibers.mean(0), torch.cov(fibers.T))
    expected = float(normal.log_prob(fibers).mean()) / 8
    found = []
    for soft in (True, False):
        decoder = decoder_of(soft=soft)
        for block in decoder.blocks:  # couplings that do next to nothing, as training starts with
            for parameter in block.subnet.parameters():
                parameter.data *= 0.01
        flow = FlowGradient(decoder, *GRID)
        flow.standardise(fibers, rows, columns)
        found.append(float(flow.log_likelihood(fibers, rows, columns).mean()))
        matrix = decoder.blocks[0].w_perm
        torch.testing.assert_close(matrix @ matrix.T, torch.eye(8, dtype=torch.float64), rtol=0, atol=1e-12)
        torch.testing.assert_close(
            log_likelihood(*decoder(fibers, position_code(*GRID).double()[rows, columns])).mean(),
            flow.log_likelihood(fibers, rows, columns).mean(),  # the detector has the same axes
        )
    assert found[0] == pytest.approx(expected, abs=0.02)
    assert found[1] < expected - 0.1  # a permutation turns nothing


def test_few_fibers_do_not_choose_the_axes() -> None:
    decoder = decoder_of()
    before = decoder.blocks[0].w_perm.clone()
    fibers, rows, columns = batch_of(8, 60)
    FlowGradient(decoder, *GRID).standardise(fibers, rows, columns)
    assert torch.equal(decoder.blocks[0].w_perm, before)
