"""The flow against FrEIA's own block, autograd and plain loops."""

import math

import numpy as np
import pytest
import torch
from FrEIA.modules import AllInOneBlock
from scipy.stats import multivariate_normal
from torch import nn

from export.model.flow import (
    CouplingBlock,
    Decoder,
    log_likelihood,
    orthogonal_matrix,
    paper_units,
    permutation_matrix,
    position_code,
)

DIMS, CONDITION = 6, 8


def subnet(dims_in: int, dims_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dims_in, 2 * dims_in), nn.ReLU(), nn.Linear(2 * dims_in, dims_out))


def disturb(module: nn.Module, seed: int = 0) -> None:
    """Make every trained parameter non-trivial: as built, scales are alike and offsets zero."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        if parameter.requires_grad:
            parameter.data += 0.5 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)


def our_block(clamp: str = "tanh(a)", permuted: bool = True) -> CouplingBlock:
    permutation = orthogonal_matrix(DIMS, torch.Generator().manual_seed(1)) if permuted else None
    block = CouplingBlock(DIMS, CONDITION, clamp, permutation, paper_units(DIMS, CONDITION)).double()
    disturb(block)
    return block


def inputs(count: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(count, DIMS, generator=generator, dtype=torch.float64)
    return x, torch.randn(count, CONDITION, generator=generator, dtype=torch.float64)


def test_the_released_clamp_is_freias_own_block() -> None:
    block = our_block()
    reference = AllInOneBlock(
        [(DIMS,)],
        dims_c=[(CONDITION,)],
        subnet_constructor=subnet,
        affine_clamping=1.9,
        global_affine_type="SOFTPLUS",
        permute_soft=True,
    ).double()
    missing = reference.load_state_dict(block.state_dict(), strict=False)
    assert missing.missing_keys == ["w_perm_inv"]
    assert not missing.unexpected_keys
    x, c = inputs()
    (ours,), log_det = block([x], c=[c])
    (theirs,), their_log_det = reference([x], c=[c])
    # the same operations in the same order but for 0.1·a, which FrEIA multiplies in place
    torch.testing.assert_close(ours, theirs, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(log_det, their_log_det, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("clamp", ["tanh(a)", "tanh(a/c)"])
def test_a_block_is_the_designs_formula_and_its_log_determinant_autograds(clamp: str) -> None:
    block = our_block(clamp)
    x, c = inputs(1)
    (y,), log_det = block([x], c=[c])
    first, second = x[0, : DIMS // 2], x[0, DIMS // 2 :]
    hidden = torch.relu(block.subnet[0].weight @ torch.cat([first, c[0]]) + block.subnet[0].bias)
    a = 0.1 * (block.subnet[2].weight @ hidden + block.subnet[2].bias)
    pre, t = a[: DIMS // 2], a[DIMS // 2 :]
    s = 1.9 * torch.tanh(pre if clamp == "tanh(a)" else pre / 1.9)
    g = 0.1 * torch.nn.functional.softplus(block.global_scale[0], beta=0.5)
    expected = block.w_perm @ (g * torch.cat([first, second * s.exp() + t]) + block.global_offset[0])
    torch.testing.assert_close(y[0], expected, rtol=1e-12, atol=1e-12)  # float64, another order of sums
    jacobian = torch.autograd.functional.jacobian(lambda v: block([v[None]], c=[c])[0][0][0], x[0])
    # the permutation, a float32 QR, has a determinant of 1 within 1e-6
    torch.testing.assert_close(log_det[0], torch.linalg.slogdet(jacobian)[1], rtol=0, atol=2e-6)


@pytest.mark.parametrize("permuted", [True, False])
@pytest.mark.parametrize("clamp", ["tanh(a)", "tanh(a/c)"])
def test_a_block_inverts(clamp: str, permuted: bool) -> None:
    block = our_block(clamp, permuted)
    x, c = inputs()
    (y,), log_det = block([x], c=[c])
    (back,), back_log_det = block([y], c=[c], rev=True)
    torch.testing.assert_close(back, x, rtol=1e-6, atol=1e-6)  # the permutation is a float32 QR
    torch.testing.assert_close(back_log_det, -log_det, rtol=1e-6, atol=1e-6)


def test_an_orthogonal_matrix_is_orthogonal_and_seeded() -> None:
    first, again, other = (orthogonal_matrix(64, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    torch.testing.assert_close(first @ first.T, torch.eye(64), rtol=0, atol=1e-5)  # float32 QR
    assert sorted(permutation_matrix(9, torch.Generator()).argmax(1).tolist()) == list(range(9))


def test_decoders_are_built_without_scipys_slow_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("scipy's special_ortho_group takes seconds a block at 2048 channels")

    monkeypatch.setattr("FrEIA.modules.all_in_one_block.special_ortho_group.rvs", refuse)
    decoder = Decoder(1024, 1, generator=torch.Generator().manual_seed(0))
    assert "blocks.0.w_perm_inv" not in decoder.state_dict()


def test_the_position_code_is_the_designs_formula() -> None:
    code = position_code(3, 5).numpy()
    for h in range(3):
        for w in range(5):
            for dim in range(128):
                position, index = (w, dim) if dim < 64 else (h, dim - 64)
                angle = position * math.exp(-math.log(1e4) * 2 * (index // 2) / 64)
                value = math.sin(angle) if index % 2 == 0 else math.cos(angle)
                assert code[h, w, dim] == pytest.approx(value, abs=1e-7)  # float32 of a float64 value


def test_log_likelihood_is_a_standard_normals() -> None:
    u = torch.randn(7, DIMS, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    log_det = torch.linspace(-3, 3, 7, dtype=torch.float64)
    expected = (multivariate_normal(np.zeros(DIMS)).logpdf(u.numpy()) + log_det.numpy()) / DIMS
    np.testing.assert_allclose(log_likelihood(u, log_det).numpy(), expected, rtol=1e-12)


def test_unconditional_decoders_take_no_condition() -> None:
    decoder = Decoder(DIMS, 2, condition_dims=0, generator=torch.Generator().manual_seed(0))
    u, log_det = decoder(torch.randn(3, DIMS), None)
    assert u.shape == (3, DIMS)
    assert log_det.shape == (3,)


def test_channels_that_are_factored_out_leave_after_two_blocks_and_the_likelihood_is_exact() -> None:
    decoder = Decoder(8, 3, factored=True, generator=torch.Generator().manual_seed(0)).double()
    for block in decoder.blocks:
        disturb(block)
    x = torch.randn(8, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    c = torch.randn(1, 128, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    u, log_det = decoder(x[None], c)
    wide, narrow = decoder.stages
    assert [block.global_scale.shape[1] for block in decoder.blocks] == [8, 8, 4, 4, 4]
    assert [block.subnet[0].out_features for block in decoder.blocks] == [16, 16, 8, 8, 8]
    state = x[None]
    for block in wide:
        (state,), _ = block([state], c=[c])
    assert torch.equal(u[:, 4:], state[:, 4:])  # as they left
    state = state[:, :4]
    for block in narrow:
        (state,), _ = block([state], c=[c])
    assert torch.equal(u[:, :4], state)
    jacobian = torch.autograd.functional.jacobian(lambda v: decoder(v[None], c)[0][0], x)
    # each of the permutations, float32 QRs, has a determinant of 1 within 1e-6
    torch.testing.assert_close(log_det[0], torch.linalg.slogdet(jacobian)[1], rtol=0, atol=1e-5)
