"""Training on tiles: each fiber has its place in the frame, in the likelihood, in its gradient and in the order."""

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from export.model.cflow import CFlow, ModelConfig
from export.model.flow import log_likelihood, position_code
from runtime.images.tiles import TileGrid
from tests.support.small_decoder import GRID, batch_of, decoder_of
from tests.train.loop.test_flow_gradient import gradients_by_name
from train.data.frame_tiles import TileCache
from train.loop import training
from train.loop.flow_gradient import FlowGradient
from train.loop.schedule import FAST, Recipe
from train.loop.tap_training import Fibers, TapTraining
from train.loop.training import Trainer, origins_of

ORIGINS = ((0, 2.25, 4.5), (0, 6.125))  # of 3x2 tiles, in positions of the frame
TILES = TileGrid((96, 150), (64, 64), 16)
CONFIG = ModelConfig("resnet18", ("layer1", "layer2"), (64, 64), coupling_blocks=2, score="deviation", tiles=TILES)
RECIPE = replace(FAST, meta_epochs=2, batch=4, matmul_precision="highest", positions=0)


def frame_codes(rows: Tensor, columns: Tensor) -> Tensor:
    """Return the codes (N, C) of rows 0..14 and columns 0..13, tile after tile, each computed by itself."""
    (height, width), (tops, lefts) = GRID, ORIGINS
    codes = [
        position_code(1, 1, origin=(tops[row // height] + row % height, lefts[column // width] + column % width))[0, 0]
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True)
    ]
    return torch.stack(codes).double()


@pytest.mark.parametrize("factored", [False, True])
@pytest.mark.parametrize("count", [200, 20, 6])  # 6: the tables have more rows than there are fibers
def test_likelihood_and_gradient_of_tiles_are_autograds(count: int, factored: bool) -> None:
    decoder = decoder_of(factored=factored)
    fibers = batch_of(8, count)[0]
    generator = torch.Generator().manual_seed(3)
    rows = torch.randint(0, 3 * GRID[0], (count,), generator=generator)
    columns = torch.randint(0, 2 * GRID[1], (count,), generator=generator)
    plain = copy.deepcopy(decoder)
    expected = log_likelihood(*plain(fibers, frame_codes(rows, columns)))
    (-F.logsigmoid(expected).mean()).backward()
    flow = FlowGradient(decoder, *GRID, ORIGINS)
    logp = flow.log_likelihood(fibers, rows, columns)
    torch.testing.assert_close(logp, expected.detach(), rtol=1e-12, atol=1e-12)  # float64 in another order
    flow.backward(torch.sigmoid(-logp) / -len(logp))
    ours = gradients_by_name(flow, decoder)
    for name, parameter in plain.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(ours[name], parameter.grad, rtol=1e-9, atol=1e-13, msg=name)


def test_a_tile_is_judged_in_training_as_the_detector_judges_it_in_its_place() -> None:
    model = CFlow(CONFIG).double().eval()
    features = [torch.randn(5, *size, dtype=torch.float64) for size in CONFIG.tap_sizes]
    corners, places = list(TILES.corners())[1:], torch.tensor([[0, 1], [0, 2], [1, 0], [1, 1], [1, 2]])
    strides = zip(CONFIG.tap_sizes, origins_of(CONFIG), strict=True)
    for index, ((_, height, width), origins) in enumerate(strides):
        fibers, condition = model.fibers(features[index], index, corners)
        expected = log_likelihood(*model.decoders[index](fibers, condition)).detach()
        tap = TapTraining(model.decoders[index], (height, width), 1e-3, origins=origins)  # type: ignore[arg-type]
        # soft permutations are drawn in float32, and the last one, which we leave out, changes the norm by its rounding
        torch.testing.assert_close(tap.log_likelihood(fibers, places), expected, rtol=1e-6, atol=1e-6)
        elsewhere = tap.log_likelihood(fibers, places.flip(0))
        assert not torch.allclose(elsewhere, expected, rtol=1e-3, atol=1e-3)  # the place matters


def test_shuffled_fibers_keep_their_places() -> None:
    decoder, places = decoder_of(), torch.tensor([[2, 0], [0, 1], [1, 1]])
    tap = TapTraining(decoder, GRID, 1e-3, origins=ORIGINS)
    values = batch_of(8, 3 * 35)[0]
    fibers = Fibers.shuffled(values, 35, 0.0, torch.Generator().manual_seed(0), places=places)
    rows, columns = tap._grid_positions(fibers.order, fibers.places)
    for fiber, row, column in zip(fibers.order.tolist(), rows.tolist(), columns.tolist(), strict=True):
        tile, position = divmod(fiber, 35)
        assert (row // 5, column // 7) == tuple(places[tile].tolist())
        assert (row % 5, column % 7) == divmod(position, 7)


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder, random = tmp_path_factory.mktemp("frames"), np.random.default_rng(0)
    paths = [folder / f"{index}.png" for index in range(4)]
    for path in paths:
        Image.fromarray(random.integers(0, 256, (*TILES.frame, 3), dtype=np.uint8)).save(path)
    return paths


def trainer_of(frames: list[Path], tmp_path: Path, recipe: Recipe = RECIPE) -> tuple[Trainer, TileCache]:
    held_out = TileCache(frames[3:], TILES, scratch=tmp_path)
    torch.manual_seed(0)  # of the encoder
    return Trainer(CFlow(CONFIG), TileCache(frames[:3], TILES, scratch=tmp_path), recipe), held_out


def test_the_held_out_likelihood_of_a_frame_is_its_tiles_mean(frames: list[Path], tmp_path: Path) -> None:
    trainer, held_out = trainer_of(frames, tmp_path)
    found = trainer._held_out_logps(held_out)
    assert found.shape == (2, 1)
    with torch.no_grad():
        tiles = torch.from_numpy(held_out.batch(range(len(held_out))))
        maps = trainer.model.log_likelihoods(tiles, list(TILES.corners()))
    expected = torch.stack([tap.double().mean() for tap in maps])
    torch.testing.assert_close(found[:, 0], expected, rtol=0, atol=1e-5)  # float32 in another order


def test_a_pass_takes_every_tile_of_every_frame_once_in_an_order_over_all_frames(
    frames: list[Path], tmp_path: Path
) -> None:
    trainer, _ = trainer_of(frames, tmp_path)
    batches = [indices for indices, _ in trainer._shares()]
    order = [index for batch in batches for index in batch]
    assert sorted(order) == list(range(3 * TILES.count)) and order != sorted(order)
    assert max(len({index // TILES.count for index in batch}) for batch in batches) > 1


def test_features_that_are_kept_and_features_that_are_computed_train_alike(
    frames: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, held_out = trainer_of(frames, tmp_path)
    kept.start(held_out)
    with monkeypatch.context() as patch:
        patch.setattr(training, "memory_bytes", lambda: 0)
        computed, _ = trainer_of(frames, tmp_path)
        computed.start(held_out)
        assert computed._kept_features is None
        loss = computed.train_pass()
    assert kept._kept_features is not None
    assert kept.train_pass() == pytest.approx(loss, abs=1e-5)  # encoded in batches of another size


def test_training_is_told_where_its_tiles_are(frames: list[Path], tmp_path: Path) -> None:
    """The very frames with the tiles' places mixed up train another model."""
    trainer, held_out = trainer_of(frames, tmp_path)
    wrong, _ = trainer_of(frames, tmp_path)
    again, _ = trainer_of(frames, tmp_path)
    wrong.images.places = lambda indices: np.zeros((len(indices), 2), np.int64)  # type: ignore[method-assign]
    for each in (trainer, wrong, again):
        each.start(held_out)
        each.train_pass()
    assert torch.equal(trainer.taps[0].flow.parameters, again.taps[0].flow.parameters)
    assert not torch.equal(trainer.taps[0].flow.parameters, wrong.taps[0].flow.parameters)
