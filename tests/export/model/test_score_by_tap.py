"""The score by tap: its weights from good images alone, and what they do with few images or a tap that stands still."""

import re

import numpy as np
import pytest
import torch

from export.model.cflow import CFlow, ModelConfig
from export.model.score import (
    MOST_POSITIONS,
    constant_shape,
    freeze_constants,
    image_score,
    likelihood_ratios,
    rank_weights,
    share_weights,
)
from runtime.common.errors import UserError
from tests.support.export_fixtures import float64_constants, float64_score, mean_of_neighbours
from tests.support.paths import ROOT


def likelihoods(images: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [
        rng.normal(2, 1, (images, 20, 30)),
        rng.normal(1, 0.3, (images, 10, 15)) + rng.normal(0, 0.2, (images, 1, 1)),
    ]


@pytest.mark.parametrize("images", [1, 2, 40])
def test_weights_and_score_are_their_definition(images: int) -> None:
    good, seen = likelihoods(images), likelihoods(5, seed=1)
    expected = float64_constants(good, "tap_deviation")
    constants = freeze_constants([torch.from_numpy(logp) for logp in good], "tap_deviation")
    assert constants.shape == constant_shape("tap_deviation", 2) == (5, 2)
    np.testing.assert_allclose(constants.numpy(), expected, rtol=1e-10)
    assert float(constants[2:].sum()) == pytest.approx(2) and (constants > 0)[1:].all()
    scores = image_score(
        likelihood_ratios([torch.from_numpy(logp) for logp in seen], constants),
        torch.zeros(5, 4, 4),
        "tap_deviation",
        constants,
    )
    np.testing.assert_allclose(scores.numpy(), float64_score(seen, expected, np.zeros((5, 4, 4)), "tap_deviation"))
    assert 0 <= scores.min() <= scores.max() <= 2


def test_a_tap_that_says_little_of_good_images_is_heard_less() -> None:
    rng = np.random.default_rng(0)
    steady = torch.from_numpy(1 - rng.uniform(0.4, 0.5, (40, 16, 16)))
    restless = torch.from_numpy(1 - rng.uniform(0.0, 1.0, (40, 1, 1)) * rng.uniform(0.8, 1, (40, 8, 8)))
    weights = share_weights([steady, restless])
    assert (weights[:, 0] > 2 * weights[:, 1]).all()


def test_a_tap_that_stands_still_does_not_take_all() -> None:
    rng = np.random.default_rng(0)
    still, other = torch.ones(40, 16, 16), torch.from_numpy(1 - rng.uniform(0, 1, (40, 8, 8))).float()
    weights = share_weights([still, other])
    assert torch.isfinite(weights).all() and weights[:, 0].max() <= 10 * weights[:, 1].max() * (1 + 1e-6)
    assert torch.isfinite(share_weights([still, still])).all()


def test_no_more_positions_are_asked_for_than_a_topk_returns() -> None:
    by_rank = rank_weights(torch.ones(1, 1000, 1000))
    assert by_rank.shape[1] == MOST_POSITIONS
    torch.testing.assert_close(by_rank.sum(1), torch.ones(3))


def test_a_pooled_tap_is_the_mean_of_its_neighbours() -> None:
    model = CFlow(ModelConfig("resnet18", ("layer1", "layer2"), (64, 96), coupling_blocks=1, pooled=("layer2",))).eval()
    frames = torch.randint(0, 256, (2, 64, 96, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain, pooled = model.encoder(model.normalise(frames)), model.features(frames)
    assert torch.equal(plain[0], pooled[0])
    expected = mean_of_neighbours(plain[1].double().numpy())
    np.testing.assert_allclose(pooled[1].numpy(), expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_nothing_reads_a_detectors_taps_past_their_pooling() -> None:
    # the published loop has no pooling, and the memory bank does its own
    apart = {"export/model/cflow.py", "train/benchmark.py", "train/comparing/encoder_table.py"}
    sources = {
        path.relative_to(ROOT).as_posix(): path for room in ("export", "train") for path in (ROOT / room).rglob("*.py")
    }
    reading = {
        name for name, path in sources.items() if re.search(r"\.encoder\((self\.)?model\.normalise", path.read_text())
    }
    assert reading <= apart, "take model.features(frames)"


@pytest.mark.parametrize("size", [(64, 96), (72, 104), (40, 33)])
def test_a_halved_tap_is_every_second_row_and_column_of_the_means(size: tuple[int, int]) -> None:
    taps = ("layer1", "layer2")
    whole = CFlow(ModelConfig("resnet18", taps, size, coupling_blocks=1, pooled=taps)).eval()
    model = CFlow(ModelConfig("resnet18", taps, size, coupling_blocks=1, pooled=taps, halved=("layer2",))).eval()
    model.load_state_dict(whole.state_dict())  # the same parts
    frames = torch.randint(0, 256, (2, *size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        every, second, maps = whole.features(frames), model.features(frames), model.log_likelihoods(frames)
    assert torch.equal(every[0], second[0])
    torch.testing.assert_close(second[1], every[1][:, :, ::2, ::2], rtol=0, atol=1e-6)
    assert [tuple(tap.shape[1:]) for tap in second] == model.config.tap_sizes
    assert [tuple(each.shape[1:]) for each in maps] == [grid[1:] for grid in model.config.tap_sizes]


def test_a_halved_tap_must_be_a_pooled_one() -> None:
    with pytest.raises(UserError, match="halved taps must be pooled ones: layer1; found layer2"):
        ModelConfig("resnet18", ("layer1", "layer2"), pooled=("layer1",), halved=("layer2",))


def test_a_pooled_tap_must_be_a_tap() -> None:
    with pytest.raises(UserError, match="pooled taps must be among layer1"):
        ModelConfig("resnet18", ("layer1",), pooled=("layer2",))
