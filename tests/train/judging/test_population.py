"""What training keeps of held-out images is what the line measures on frames of the same pixels."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from export.model.cflow import CFlow, ModelConfig
from export.model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from export.to_onnx import sidecar_of
from runtime.drift.numbers import NUMBERS, numbers_of
from runtime.engines.sidecar import Sidecar
from runtime.images.preprocess import read_image
from train.data.cable_renderer import render
from train.data.open import ImageCache
from train.fit import build_model
from train.judging.population import population_of
from train.judging.scores import freeze, score_images

SIZE, CPU = (96, 96), torch.device("cpu")
TAPS = ("layer1", "layer2")


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder, found = tmp_path_factory.mktemp("cables"), []
    for number in range(10):
        found.append(folder / f"{number}.png")
        Image.fromarray(render(np.random.default_rng(number), 160, None)[0]).save(found[-1])
    return found


@pytest.fixture(scope="module")
def checkpoint(paths: list[Path]) -> Checkpoint:
    images, config = ImageCache(paths, SIZE), ModelConfig("resnet18", TAPS, SIZE, coupling_blocks=1)
    model, weights = build_model(config, "random", images)
    constants, threshold = freeze(model, images, 0.01, CPU)
    population = population_of(model, constants, images, CPU)
    return Checkpoint(model, constants, {"t": threshold}, "t", weights, "", population=population)


def test_it_has_the_pictures_numbers_the_score_and_each_tap(checkpoint: Checkpoint, paths: list[Path]):
    population = checkpoint.population
    assert population is not None and population.count == len(paths)
    assert set(population.points) == {*NUMBERS, "score", "tap layer1", "tap layer2"}
    assert population.grids == {"layer1": 24, "layer2": 12}
    _, scores = score_images(checkpoint.model, ImageCache(paths, SIZE), checkpoint.constants, CPU)
    assert population.points["score"] == pytest.approx(sorted(scores.tolist()), rel=1e-5)
    live = [numbers_of(read_image(path), SIZE) for path in paths]  # as the watch does with a frame
    for name in NUMBERS:
        assert population.points[name] == pytest.approx(sorted(row[name] for row in live), rel=1e-5)


def test_one_tap_that_strays_moves_its_number_alone(checkpoint: Checkpoint, paths: list[Path]):
    constants = checkpoint.constants.clone()
    constants[1, 1] /= 3  # what layer2 says counts three times
    assert isinstance(checkpoint.model, CFlow) and checkpoint.population is not None
    strayed, before = population_of(checkpoint.model, constants, ImageCache(paths, SIZE), CPU), checkpoint.population
    assert strayed.middle("tap layer1")[1] == pytest.approx(before.middle("tap layer1")[1], rel=1e-2)
    assert strayed.middle("tap layer2")[1] > 1.2 * before.middle("tap layer2")[1]


def test_checkpoint_and_sidecar_carry_it_and_older_ones_load_without(checkpoint: Checkpoint, tmp_path: Path):
    path = tmp_path / "cable.pt"
    save_checkpoint(path, checkpoint)
    loaded = load_checkpoint(path)
    assert loaded.population == checkpoint.population
    written = json.loads(json.dumps(sidecar_of(loaded, path).to_json()))
    assert Sidecar.from_json(written).population == checkpoint.population
    del written["population"]
    assert Sidecar.from_json(written).population is None
    save_checkpoint(path, replace(checkpoint, population=None))
    assert load_checkpoint(path).population is None
