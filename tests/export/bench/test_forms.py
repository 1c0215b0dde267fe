"""The forms that the benchmark compares compute the same, and what numpy computes from their weights."""

import numpy as np
import pytest

from export.bench.decoder_forms import Form, decoders, random_blocks
from export.bench.forms import ALTERNATIVES, figures, main
from export.bench.upsampling_forms import UPSAMPLINGS, upsampling
from runtime.common.errors import UserError
from tests.support.export_fixtures import interpolation, session_of

TAPS = [(8, 4, 6), (12, 2, 3)]
BLOCKS = 3
# Sums of a few hundred float32 products of size 1, in another order.
TOLERANCE = 1e-4


def coupled(tap, shape, blocks):
    """Coupling by coupling in float64: Σ log-scales - Σ u² of a tap (B, D, h, w)."""
    channels = shape[0]
    x = np.moveaxis(tap.astype(np.float64), 1, -1)
    log_det = 0.0
    for index, block in enumerate(blocks):
        passive, active = np.split(x, 2, axis=-1)
        hidden = passive @ block.first.T + block.row[:, None] + block.col[None]
        scale, shift = np.split(np.maximum(hidden, 0) @ block.last.T + block.last_bias, 2, axis=-1)
        scale = 1.9 * np.tanh(scale)
        log_det = log_det + scale.sum(axis=-1)
        x = np.concatenate([passive, active * np.exp(scale) + shift], axis=-1)
        if index + 1 < len(blocks):
            x = x @ block.permutation.T + block.permutation_bias
    assert x.shape[-1] == channels
    return log_det - (x**2).sum(axis=-1)


@pytest.fixture
def flat():
    return np.random.default_rng(1).standard_normal((2, sum(int(np.prod(tap)) for tap in TAPS))).astype(np.float32)


@pytest.mark.parametrize("form", [Form(), *ALTERNATIVES.values()], ids=["in use", *ALTERNATIVES])
def test_a_form_computes_couplings(form, flat):
    results = session_of(decoders(form, TAPS, BLOCKS)).run(None, {"x": flat})
    first = 0
    for index, (tap, result) in enumerate(zip(TAPS, results, strict=True)):
        size = int(np.prod(tap))
        image = flat[:, first : first + size].reshape(-1, *tap)
        first += size
        expected = coupled(image, tap, random_blocks(tap, BLOCKS, seed=index))
        np.testing.assert_allclose(result, expected, rtol=TOLERANCE, atol=TOLERANCE)


def test_forms_differ_in_their_nodes():
    nodes = {len(decoders(form, TAPS, BLOCKS).graph.node) for form in (Form(), *ALTERNATIVES.values())}
    assert len(nodes) >= 6


@pytest.mark.parametrize("form", UPSAMPLINGS)
def test_a_form_upsamples(form):
    grids, size = [(4, 6), (2, 3)], (16, 25)
    maps = [np.random.default_rng(index).random((2, *grid), dtype=np.float32) for index, grid in enumerate(grids)]
    flat = np.concatenate([image.reshape(2, -1) for image in maps], axis=1)
    expected = 2.0
    for image in maps:
        rows, columns = (interpolation(i, o) for i, o in zip(image.shape[1:], size, strict=True))
        expected = expected - rows @ image.astype(np.float64) @ columns.T
    (result,) = session_of(upsampling(form, grids, size)).run(None, {"x": flat})
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-5)


def test_every_alternative_is_measured():
    pytest.importorskip("openvino", reason="one of the engines that are measured")
    found = list(figures("mobilenet_v3_large", 64, blocks=1, threads=1, rounds=1))
    assert [figure.form for figure in found][: len(ALTERNATIVES)] == list(ALTERNATIVES)
    assert len(found) == len(ALTERNATIVES) + len(UPSAMPLINGS) - 1
    assert all(ratio > 0 for figure in found for ratio in figure.ratio.values())


def test_refuses_no_rounds():
    with pytest.raises(UserError, match="must be 1 or more"):
        main(["--runs", "0"])
