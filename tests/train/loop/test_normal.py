"""The normal distribution that a training begins as, and that it must beat."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from export.model.cflow import ModelConfig
from train.data.hard_sets import HARD_SETS, write_hard_set
from train.data.open import ImageCache, open_dataset
from train.fit import build_model
from train.judging.gaussian import gaussian_logps
from train.loop.normal import SHRINKAGES, SMALLEST_SHARE, fit_normal
from train.loop.schedule import FAST
from train.loop.training import Trainer


def drawn(count: int, channels: int, seed: int) -> np.ndarray:
    """Return features (count, channels), correlated alike for every seed."""
    mixed = np.random.default_rng(0).normal(size=(channels, channels))
    return 3 + np.random.default_rng(seed).normal(size=(count, channels)) @ mixed


@pytest.mark.parametrize("count", [2000, 20])
def test_it_is_scipys_normal_with_shrunk_correlations(count: int) -> None:
    features, new = drawn(count, 12, 1), drawn(500, 12, 2)
    features[:, 3] = 0.5  # a channel that never changes

    def logp(fitted: np.ndarray, judged: np.ndarray, share: float) -> float:
        deviations = fitted.std(0)
        deviations = np.maximum(deviations, SMALLEST_SHARE * deviations.mean())
        white = (fitted - fitted.mean(0)) / deviations
        correlations = (1 - share) * white.T @ white / len(white) + share * np.eye(12)
        covariance = correlations * deviations * deviations[:, None]
        return float(stats.multivariate_normal(fitted.mean(0), covariance).logpdf(judged).mean() / 12)

    halves = features[: count // 2], features[count // 2 :]
    share = max(SHRINKAGES, key=lambda each: logp(*halves, each))
    assert share == 1e-3 if count == 2000 else share >= 1e-2
    found = fit_normal(torch.from_numpy(features))
    assert found.mean_log_likelihood(torch.from_numpy(new)) == pytest.approx(logp(features, new, share))


@pytest.mark.parametrize("features", [torch.zeros(50, 4), torch.full((50, 4), 3.0), torch.ones(2, 4)])
def test_features_that_never_change_have_a_finite_likelihood_and_are_not_blown_up(features: torch.Tensor) -> None:
    normal = fit_normal(features)
    assert np.isfinite(normal.mean_log_likelihood(features))
    assert float(normal.deviations.min()) >= 1e-4 * float(features.abs().max())


@pytest.mark.parametrize("name", list(HARD_SETS))
def test_training_never_ends_below_it(name: str, tmp_path: Path) -> None:
    """Ten images of a hard set, and far fewer features than a tap's 256 channels ask for."""
    write_hard_set(tmp_path, name, 10)
    paths = open_dataset(tmp_path).train
    images, held_out = ImageCache(paths[:9], (48, 48)), ImageCache(paths[9:], (48, 48))
    model, _ = build_model(ModelConfig("resnet18", ("layer2", "layer3"), (48, 48)), "random", images)
    trainer = Trainer(model, images, FAST)
    trainer.start(held_out)
    normal = gaussian_logps(model, trainer.normals, held_out, trainer.device)
    assert [kept.logp for kept in trainer.kept] == pytest.approx(normal, abs=1e-3)
    for _ in range(2):
        trainer.end_pass(trainer.train_pass(), held_out)
    assert all(kept.logp >= logp - 1e-3 for kept, logp in zip(trainer.kept, normal, strict=True))
