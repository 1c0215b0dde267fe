"""Training images varied: what is drawn, what it does to pixels, and which images it never touches."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance

from export.model.checkpoint import load_checkpoint
from runtime.images.tiles import TileGrid
from tests.train.loop.test_training import arguments, data, trainer_of  # noqa: F401
from train import fit
from train.data.frame_tiles import TileCache
from train.data.open import ImageCache, open_dataset, rotate, split_held_out
from train.judging.scores import freeze
from train.loop.augmentation import AS_IT_IS, Part, Variation, image_batches, varied
from train.loop.processes import Processes
from train.loop.schedule import FAST, PAPER, VARIATIONS, Recipe

PICTURE = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
VARIES = {"light": 0.2, "blur": 1.5, "shift": 3.0}
VARIED = replace(FAST, batch=4, **VARIES)


def test_nothing_to_do_is_the_very_image() -> None:
    assert AS_IT_IS.of(PICTURE) is PICTURE
    assert all(v is AS_IT_IS for _, variations in image_batches(FAST, 0, 50) for v in variations)


def test_a_shift_is_numpys_padding_by_the_edge() -> None:
    for right, down in ((3, 0), (0, -5), (-4, 2), (40, 0)):
        padded = np.pad(PICTURE, ((50, 50), (50, 50), (0, 0)), mode="edge")
        expected = padded[50 - down : 74 - down, 50 - right : 82 - right]
        np.testing.assert_array_equal(Variation(shift=(right, down)).of(PICTURE), expected)


def test_a_gain_is_pillows_brightness_and_an_offset_is_added() -> None:
    for gain in (0.8, 1.3):
        expected = np.asarray(ImageEnhance.Brightness(Image.fromarray(PICTURE)).enhance(gain), int)
        assert abs(Variation(gain=gain).of(PICTURE) - expected).max() <= 1  # Pillow cuts off, we round
    expected = np.minimum(PICTURE.astype(int) + 51, 255)
    np.testing.assert_array_equal(Variation(offset=0.2).of(PICTURE), expected)
    assert Variation(offset=-1.0).of(PICTURE).max() == 0


def test_a_blur_is_the_sum_over_a_normal_density() -> None:
    sigma, reach = 1.3, 6
    taps = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
    taps /= taps.sum()
    padded = np.pad(PICTURE.astype(float), ((reach, reach), (reach, reach), (0, 0)), mode="reflect")
    down = sum(tap * padded[i : i + 24] for i, tap in enumerate(taps))
    expected = sum(tap * down[:, i : i + 32] for i, tap in enumerate(taps))
    # OpenCV's kernel for bytes ends at three deviations, and its weights are of 8 bits
    assert np.abs(Variation(blur=sigma).of(PICTURE) - expected).max() < 2


def test_rotations_are_drawn_as_ever() -> None:
    """The bytes of a rotated pass are those of the releases before there was anything else to vary."""
    rng = np.random.default_rng([PAPER.seed, 3])
    order = rng.permutation(70).tolist()
    for start, (indices, variations) in zip(range(0, 70, 32), image_batches(PAPER, 3, 70), strict=True):
        assert indices == order[start : start + 32]
        angles = rng.uniform(-5, 5, len(indices)).tolist()
        assert variations == [Variation(angle) for angle in angles]
        np.testing.assert_array_equal(variations[0].of(PICTURE), rotate(PICTURE, angles[0]))


def drawn(recipe: Recipe, epoch: int, count: int = 12) -> dict[int, Variation]:
    return {i: v for indices, row in image_batches(recipe, epoch, count) for i, v in zip(indices, row, strict=True)}


def test_an_image_gets_the_same_whatever_its_batch() -> None:
    first = drawn(VARIED, 2)
    assert drawn(replace(VARIED, batch=5), 2) == first
    assert {i: v for i, v in drawn(VARIED, 2, 40).items() if i < 12} == first
    assert len(set(first.values())) == 12
    assert not set(first.values()) & set(drawn(VARIED, 3).values())
    assert not set(first.values()) & set(drawn(replace(VARIED, seed=1), 2).values())
    light_alone = drawn(replace(VARIED, blur=0.0, shift=0.0), 2)  # one option does not move another's draws
    assert {i: (v.gain, v.offset) for i, v in light_alone.items()} == {i: (v.gain, v.offset) for i, v in first.items()}


def test_variations_fill_their_bounds_and_stay_in_them() -> None:
    every = [v for epoch in range(40) for v in drawn(VARIED, epoch).values()]
    for values, low, high in (
        ([v.gain for v in every], 0.8, 1.2),
        ([v.offset for v in every], -0.05, 0.05),
        ([v.blur for v in every], 0.0, 1.5),
        ([v.shift[0] for v in every], -3, 3),
        ([v.shift[1] for v in every], -3, 3),
    ):
        span = high - low
        assert low <= min(values) < low + 0.1 * span and high - 0.1 * span < max(values) <= high
        assert np.mean(values) == pytest.approx((low + high) / 2, abs=0.1 * span)


def test_two_processes_share_the_images_of_one(data: Path) -> None:  # noqa: F811
    trainer, _ = trainer_of(data, **VARIES)
    whole = torch.cat([batch for batch in trainer._image_batches() if len(batch) == 4]).tolist()
    halves = []
    for rank in range(2):
        trainer.processes = Processes(rank, 2, trainer.device)
        halves.append([batch for batch in trainer._image_batches() if len(batch) == 2])
    assert [torch.cat(pair).tolist() for pair in zip(*halves, strict=True)] == [whole[:4], whole[4:]]


@pytest.mark.slow
def test_held_out_images_and_the_thresholds_are_judged_as_they_are(data: Path, tmp_path: Path) -> None:  # noqa: F811
    more = ["--light", "0.2", "--blur", "1.5", "--shift", "3", "--meta-epochs", "2"]
    fit.main(arguments(data, tmp_path / "cable.pt", *more))
    checkpoint = load_checkpoint(tmp_path / "cable.pt")
    last = checkpoint.history[-1]
    assert [last[name] for name in VARIATIONS] == [5.0, 0.2, 1.5, 3.0]  # rotated as the paper does
    trained, held_out = (ImageCache(part, (64, 64)) for part in split_held_out(open_dataset(data).train, 0.25, 0))
    assert torch.equal(checkpoint.golden, torch.from_numpy(held_out.image(0)))
    constants, threshold = freeze(checkpoint.model, held_out, 0.01, torch.device("cpu"), [], trained)
    torch.testing.assert_close(constants, checkpoint.constants, rtol=0, atol=0)
    assert threshold == checkpoint.thresholds["good_quantile"]
    with torch.inference_mode():
        maps = checkpoint.model.log_likelihoods(torch.from_numpy(held_out.batch(range(len(held_out)))))
    assert float(maps[0].mean()) == pytest.approx(last["kept_logp"], abs=1e-5)  # another order of float32 sums


@pytest.mark.parametrize(
    "variation",
    [
        Variation(shift=(7, -4)),
        Variation(blur=2.3),
        Variation(gain=1.1, offset=-0.02),
        Variation(angle=4.0),
        Variation(angle=-173.0),
        Variation(angle=5.0, shift=(-60, 30), blur=1.2, gain=0.9),
    ],
)
def test_a_part_of_a_frame_is_varied_as_the_whole_frame_is(variation: Variation) -> None:
    frame = cv2.resize(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8), (300, 190))
    whole = variation.of(frame).astype(int)
    for top, left in ((0, 0), (62, 110), (126, 236), (0, 236)):
        part = variation.of_part(frame, Part(top, top + 64, left, left + 64)).astype(int)
        assert part.shape == (64, 64, 3)
        # a rotation's coordinates are rounded otherwise, and with them the last bit of a level
        assert np.abs(part - whole[top : top + 64, left : left + 64]).max() <= (1 if variation.angle else 0)


def test_no_more_of_a_frame_is_read_than_a_varied_part_takes() -> None:
    class Watched(np.ndarray):  # what a frame on disk would read
        def __getitem__(self, key: object) -> np.ndarray:
            found = np.asarray(self)[key]  # type: ignore[index]
            read.append(found.size)
            return found

    read: list[int] = []
    frame = np.zeros((2000, 3000, 3), np.uint8).view(Watched)
    Variation(angle=5.0, shift=(9, 9), blur=1.5).of_part(frame, Part(1000, 1064, 1500, 1564))
    assert max(read) < 3 * (64 + 40) ** 2


def test_tiles_of_varied_frames_are_cut_in_their_places(tmp_path: Path) -> None:
    frame = cv2.resize(np.random.default_rng(0).integers(0, 256, (9, 15, 3), dtype=np.uint8), (150, 96))
    Image.fromarray(frame).save(tmp_path / "0.png")
    cache, variation = TileCache([tmp_path / "0.png"], TileGrid((96, 150), (64, 64), 16)), Variation(shift=(5, 3))
    for index, (top, left) in enumerate(cache.grid.corners()):
        expected = variation.of(frame)[top : top + 64, left : left + 64]
        assert np.array_equal(varied(cache, index, variation), expected)
        assert np.array_equal(varied(cache, index, AS_IT_IS), frame[top : top + 64, left : left + 64])
