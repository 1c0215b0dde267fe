"""A masked result against the score made anew from the taps, and with a detector of the demo's kind."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from export.model import score as graph_score
from export.model.cflow import DetectorModule
from export.model.checkpoint import load_checkpoint
from runtime.common.errors import UserError
from runtime.images import mask
from runtime.images.mask import Scoring, mask_at, result_inside
from runtime.images.regions import regions_above
from runtime.images.tiles import TileGrid
from runtime.images.view import View, ViewOptions
from runtime.result import Result
from tests.support.tiny_checkpoint import write_tiny_checkpoint

SIDE = 128


def _result(anomaly_map: np.ndarray, image_score: float, threshold: float = 1.0) -> Result:
    verdict = "anomalous" if image_score > threshold else "good"
    return Result(anomaly_map.astype(np.float32), image_score, verdict, threshold, 0.5, {"total": 1.0})


def _taps(seed: int, strides: tuple[int, ...] = (4, 8, 16)) -> list[torch.Tensor]:
    """p_k of three taps, smooth as features are, with a few defects."""
    generator = torch.Generator().manual_seed(seed)
    taps = []
    for cells in (SIDE // stride for stride in strides):
        coarse = torch.rand((1, 1, 6, 6), generator=generator)
        smooth = torch.nn.functional.interpolate(coarse, size=(cells, cells), mode="bicubic")[:, 0]
        noise = 0.05 * torch.rand((1, cells, cells), generator=generator)
        taps.append((0.6 + 0.3 * smooth + noise).clamp(0, 1))
    return taps


@pytest.mark.parametrize("seed", range(5))
def test_the_masked_deviation_score_is_the_one_of_the_finest_grid(seed: int):
    taps = _taps(seed)
    whole_map = graph_score.anomaly_map(taps, (SIDE, SIDE))
    whole = float(graph_score.image_score(taps, whole_map, "deviation", torch.zeros(2, 3)))
    grid = graph_score.anomaly_map(taps, (SIDE // 4, SIDE // 4))[0].numpy()
    inside = np.zeros((SIDE, SIDE), bool)
    inside[:, : SIDE // 2] = True
    masked = result_inside(_result(whole_map[0].numpy(), whole), inside, Scoring("deviation"))
    # independent: the same positions of the grid itself, the others 0, by sorting all of them
    kept = np.where(inside[::4, ::4], grid, 0)
    expected = np.sort(kept.ravel())[::-1][: graph_score.top_count(kept.size)].mean()
    # the map is the grid interpolated: its pixels inside reach half a cell beyond the last position inside
    assert masked.image_score == pytest.approx(expected, rel=0.05)
    assert masked.image_score <= whole and (masked.anomaly_map[:, SIDE // 2 :] == 0).all()


@pytest.mark.parametrize("strides", [(4, 8, 16), (8, 8, 16), (8, 16, 16)], ids=str)  # the finest halved, two halved
@pytest.mark.parametrize("seed", range(5))
def test_the_masked_score_by_tap_is_near_the_one_of_the_taps_themselves(seed: int, strides: tuple[int, ...]):
    taps = _taps(seed, strides)
    constants = torch.cat([torch.zeros(2, 3), graph_score.share_weights([torch.cat([tap] * 2) for tap in taps])])
    whole_map = graph_score.anomaly_map(taps, (SIDE, SIDE))
    whole = float(graph_score.image_score(taps, whole_map, "tap_deviation", constants))
    inside = np.zeros((SIDE, SIDE), bool)
    inside[:, : SIDE // 2] = True
    masked = result_inside(_result(whole_map[0].numpy(), whole), inside, Scoring("tap_deviation"))
    expected = 0.0  # independent: every tap's own positions, those outside 0, by sorting all of them
    for tap, weights in zip(taps, constants[2:].T.numpy(), strict=True):
        step = SIDE // tap.shape[1]
        kept = np.sort(np.where(inside[::step, ::step], 1 - tap[0].numpy(), 0).ravel())[::-1]
        for share, weight in zip((0.003, 0.01, 0.03), weights, strict=True):
            expected += weight * kept[: max(1, round(share * kept.size))].mean()
    # the map is the taps' sum: it knows where they are high together, not where each is
    assert masked.image_score == pytest.approx(expected, rel=0.12)
    assert masked.image_score <= whole


def test_a_share_of_positions_means_the_same_here_and_in_the_graph():
    assert mask.TOP_SHARES["deviation"] == (graph_score.TOP_SHARE,)
    assert mask.TOP_SHARES["tap_deviation"] == mask.TOP_SHARES["place_deviation"] == graph_score.TOP_SHARES
    assert set(mask.TOP_SHARES) == set(graph_score.SCORES)


@pytest.mark.parametrize("kind", graph_score.SCORES)
def test_a_mask_that_is_all_white_changes_nothing(kind: str):
    anomaly_map = np.random.default_rng(0).random((50, 70))
    before = _result(anomaly_map, 1.234)
    after = result_inside(before, np.ones((50, 70), bool), Scoring(kind))
    assert after.image_score == before.image_score and after.verdict == "anomalous"
    np.testing.assert_array_equal(after.anomaly_map, before.anomaly_map)
    assert (after.threshold, after.map_threshold, after.latency_ms) == (1.0, 0.5, {"total": 1.0})


def test_the_papers_score_is_the_largest_inside():
    anomaly_map = np.zeros((10, 10))
    anomaly_map[2, 2], anomaly_map[7, 7] = 1.5, 3.0
    inside = np.zeros((10, 10), bool)
    inside[:5, :5] = True
    masked = result_inside(_result(anomaly_map, 3.0), inside, Scoring("paper"))
    assert masked.image_score == pytest.approx(1.5) and masked.verdict == "anomalous"
    assert result_inside(_result(anomaly_map, 3.0), np.roll(inside, 2, axis=0)[::-1], Scoring("paper")).image_score == 0
    assert result_inside(_result(np.zeros((4, 4)), 0.0), np.eye(4, dtype=bool), Scoring("deviation")).image_score == 0


def test_as_many_positions_decide_as_without_a_mask():
    anomaly_map = np.zeros((100, 100))
    anomaly_map[:2], anomaly_map[50, :10] = 1, 1  # 200 hot positions outside and 10 inside; 100 decide
    inside = np.zeros((100, 100), bool)
    inside[40:80] = True
    masked = result_inside(_result(anomaly_map, 1.0), inside, Scoring("deviation"))
    assert masked.image_score == pytest.approx(0.1)


def test_a_mask_at_the_maps_size_has_what_is_at_least_half_inside():
    big = np.zeros((8, 8), bool)
    big[:, :3] = True  # a whole cell of 2 x 2, and half of the next
    assert mask_at(big, (4, 4)).tolist() == [[True, True, False, False]] * 4
    assert mask_at(big, (8, 8)).tolist() == big.tolist()
    assert mask_at(np.array([[True, False]]), (4, 8))[:, [0, 7]].tolist() == [[True, False]] * 4
    thirds = np.zeros((9, 9), bool)
    thirds[:, 1] = True  # a third of a cell
    assert not mask_at(thirds, (3, 3)).any()


def _texture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(100, 140, (SIDE, SIDE, 3), dtype=np.uint8)


@pytest.fixture(scope="module", params=["place_deviation", "tap_deviation", "deviation"])
def detector(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """A real encoder, flow and score, its constants and threshold frozen from textures; the score's kind beside it."""
    folder = tmp_path_factory.mktemp("mask")
    good = []
    for i in range(16):
        good.append(folder / f"{i}.png")
        Image.fromarray(_texture(i)).save(good[-1])
    checkpoint = load_checkpoint(write_tiny_checkpoint(folder / "tiny.pt", good, (SIDE, SIDE), score=request.param))
    assert checkpoint.model.config.score == request.param
    threshold = checkpoint.thresholds["good_quantile"]
    model = DetectorModule(checkpoint.model, checkpoint.constants).eval()

    def judge(frame: np.ndarray) -> Result:
        with torch.inference_mode():
            maps, scores = model(torch.from_numpy(frame[None]))
        score = float(scores[0])
        verdict = "anomalous" if score > threshold.value else "good"
        return Result(maps[0].numpy(), score, verdict, threshold.value, threshold.for_map, {})

    return judge, request.param


def _with_defect(x: int, y: int) -> np.ndarray:
    frame = _texture(100)
    frame[y : y + 20, x : x + 20] = (255, 255, 0)
    return frame


@pytest.mark.parametrize(("rotate", "flip"), [(0, ""), (90, "h")])
def test_a_defect_outside_the_mask_raises_no_alarm_and_one_inside_does(detector, tmp_path: Path, rotate, flip):
    white = np.zeros((SIDE, SIDE), np.uint8)
    white[:, :60] = 255
    Image.fromarray(white).save(tmp_path / "mask.png")
    view = View(ViewOptions(mask=tmp_path / "mask.png", rotate=rotate, flip=flip))

    engine, kind = detector

    def judge(frame: np.ndarray) -> tuple[Result, Result]:
        result = engine(view(frame))
        return result, view.inspected(result, Scoring(kind))

    assert [judge(_texture(100))[i].verdict for i in (0, 1)] == ["good", "good"]
    whole, masked = judge(_with_defect(104, 40))
    assert (whole.verdict, masked.verdict) == ("anomalous", "good")
    assert regions_above(whole.anomaly_map, whole.map_threshold, (SIDE, SIDE))
    whole, masked = judge(_with_defect(16, 40))
    assert (whole.verdict, masked.verdict) == ("anomalous", "anomalous")
    # the defect has fewer positions than decide the score, the rest of which are taken from half as many
    assert masked.image_score == pytest.approx(whole.image_score, rel=0.05)
    [box, *_] = regions_above(masked.anomaly_map, masked.map_threshold, (SIDE, SIDE))
    x, y, width, height = view.to_camera((box.x, box.y, box.width, box.height), (SIDE, SIDE))
    assert x <= 16 and x + width >= 36 and y <= 40 and y + height >= 60  # around the defect, in the camera's frame


def test_a_mask_too_fine_for_the_map_is_refused(tmp_path: Path):
    dot = np.zeros((SIDE, SIDE), np.uint8)
    dot[3, 3] = 255
    Image.fromarray(dot).save(tmp_path / "dot.png")
    view = View(ViewOptions(mask=tmp_path / "dot.png"))
    view(_texture(0))
    with pytest.raises(UserError, match=r"dot\.png must leave at least 3 of the map's 256 positions.*0"):
        view.inspected(_result(np.ones((16, 16)), 1.0), Scoring("deviation"))


GRID = TileGrid((90, 140), (50, 60), 10)


def _of_tiles(anomaly_map: np.ndarray, count: int) -> list[float]:
    """Independent: each tile's mean of its `count` highest positions, by sorting all of them."""
    return [
        float(np.sort(anomaly_map[top : top + 50, left : left + 60].ravel())[::-1][:count].mean())
        for top in GRID.tops
        for left in GRID.lefts
    ]


@pytest.mark.parametrize("seed", range(6))
def test_the_masked_score_of_a_tiled_frame_is_the_largest_of_its_tiles(seed: int):
    rng = np.random.default_rng(seed)
    anomaly_map = rng.random(GRID.frame).astype(np.float32)
    anomaly_map[rng.integers(0, 86) :, rng.integers(0, 136) :][:4, :4] += 1  # a defect of a few pixels
    inside = rng.random(GRID.frame) < 0.7
    inside[:, :45] = seed % 2 == 0  # a whole column of tiles in or out
    masked = result_inside(_result(anomaly_map, 1.7), inside, Scoring("deviation", GRID))
    before, after = _of_tiles(anomaly_map, 30), _of_tiles(np.where(inside, anomaly_map, 0), 30)
    assert masked.image_score == pytest.approx(1.7 * max(after) / max(before), rel=1e-6)


def test_a_defect_in_a_tile_counts_as_much_in_a_large_frame():
    anomaly_map = np.full(GRID.frame, 0.1, np.float32)
    anomaly_map[80:86, 130:135] = 2.0  # as many positions as decide a tile of 50 x 60
    inside = np.ones(GRID.frame, bool)
    inside[:40] = False
    of_tiles = result_inside(_result(anomaly_map, 2.0), inside, Scoring("deviation", GRID))
    assert of_tiles.image_score == 2.0 and of_tiles.verdict == "anomalous"
    hidden = result_inside(_result(anomaly_map, 2.0), ~inside, Scoring("deviation", GRID))
    assert hidden.image_score == pytest.approx(0.1) and hidden.verdict == "good"


def test_a_mask_must_leave_enough_of_some_tile(tmp_path: Path):
    pixels = np.zeros(GRID.frame, np.uint8)
    pixels[::10, ::20] = 255  # 9 x 7 positions in all: more than 30, but in no tile
    Image.fromarray(pixels).save(tmp_path / "dots.png")
    view = View(ViewOptions(mask=tmp_path / "dots.png"))
    with pytest.raises(UserError, match=r"dots\.png must leave at least 30 of some tile's positions"):
        view.check_map(GRID.frame, Scoring("deviation", GRID))
    pixels[:10, :20] = 255
    Image.fromarray(pixels).save(tmp_path / "enough.png")
    View(ViewOptions(mask=tmp_path / "enough.png")).check_map(GRID.frame, Scoring("deviation", GRID))
