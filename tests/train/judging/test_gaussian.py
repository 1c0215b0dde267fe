"""The normal distribution that a flow must beat, against scipy's on the same features."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from export.model.cflow import ModelConfig
from train.data.open import ImageCache, open_dataset
from train.fit import build_model
from train.judging.gaussian import SMALLEST_SHARE, gaussian_logps
from train.synthetic import write_dataset


def test_it_is_scipys_normal_with_a_floor_for_constant_channels(tmp_path: Path) -> None:
    write_dataset(tmp_path, train=6, test_good=0, per_defect=0, size=64)
    paths = open_dataset(tmp_path).train
    images, held_out = ImageCache(paths[:4], (64, 64)), ImageCache(paths[4:], (64, 64))
    model, _ = build_model(ModelConfig("resnet18", ("layer1", "layer2"), (64, 64), coupling_blocks=1), "random", images)

    def features(cache: ImageCache) -> list[np.ndarray]:
        with torch.no_grad():
            taps = model.eval().encoder(model.normalise(torch.from_numpy(cache.batch(range(len(cache))))))
        return [tap.double().permute(0, 2, 3, 1).flatten(0, 2).numpy() for tap in taps]

    found = gaussian_logps(model, images, held_out, torch.device("cpu"))
    for logp, fitted, judged in zip(found, features(images), features(held_out), strict=True):
        covariance = np.cov(fitted.T, bias=True)
        floor = SMALLEST_SHARE * np.sqrt(np.diag(covariance)).mean()
        normal = stats.multivariate_normal(fitted.mean(0), covariance + floor**2 * np.eye(len(covariance)))
        # the encoder is float32 in batches of another size
        assert logp == pytest.approx(normal.logpdf(judged).mean() / judged.shape[1], rel=1e-4)
