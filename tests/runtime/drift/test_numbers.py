"""The numbers of a picture do not move each other, and are the same however a picture came."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from runtime.drift.numbers import NUMBERS, numbers_of
from runtime.images.preprocess import read_image, resize
from train.data.cable_renderer import render

SIZE = (128, 128)
SHIFT = 12  # pixels of 256


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    """A cable before a wide background, at half of its light: nothing is clipped when there is more."""
    cable = render(np.random.default_rng(4), 160, None)[0]
    wide = np.full((256, 256, 3), cable[0, 0], np.uint8)
    wide[48:208, 48:208] = cable
    return (wide * 0.45).astype(np.uint8)


def _moved(before: np.ndarray, after: np.ndarray) -> set[str]:
    """Return the numbers that moved by more than what counts."""
    old, new = numbers_of(before, SIZE), numbers_of(after, SIZE)
    return {name for name in NUMBERS if abs(new[name] - old[name]) > NUMBERS[name].least}


def test_more_light_is_light_alone(picture: np.ndarray):
    assert _moved(picture, picture * 2) == {"light"}


def test_a_blur_is_focus_most_of_all_and_no_light(picture: np.ndarray):
    blurred = cv2.GaussianBlur(picture, (0, 0), 1)
    assert "focus" in _moved(picture, blurred) and not {"light", "red", "blue"} & _moved(picture, blurred)
    old, new = numbers_of(picture, SIZE), numbers_of(blurred, SIZE)
    by = {name: abs(new[name] - old[name]) / NUMBERS[name].least for name in NUMBERS}
    assert max(by, key=by.__getitem__) == "focus"


def test_a_moved_part_is_position_by_as_much(picture: np.ndarray):
    moved = np.roll(picture, SHIFT, axis=1)  # all around is the same background
    assert _moved(picture, moved) == {"right"}
    by = numbers_of(moved, SIZE)["right"] - numbers_of(picture, SIZE)["right"]
    assert by == pytest.approx(SHIFT / 256, rel=0.1)
    assert _moved(picture, np.roll(picture, SHIFT, axis=0)) == {"down"}


def test_a_lamp_that_lights_one_side_moves_no_part(picture: np.ndarray):
    lamp = np.linspace(0.8, 1.2, 256)[None, :, None]
    assert not {"right", "down"} & _moved(picture, (picture * lamp).round().astype(np.uint8))


def test_other_colours_are_colour_alone(picture: np.ndarray):
    assert {"red", "blue"} <= _moved(picture, (picture * [1.0, 0.98, 0.9]).round().astype(np.uint8))


def test_compression_is_found_wherever_a_region_cuts_its_blocks(picture: np.ndarray):
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=75)
    packed = np.asarray(Image.open(file))
    assert "compression" in _moved(picture, packed)
    assert "compression" in _moved(picture[5:, 3:], packed[5:, 3:])


def test_files_of_the_same_pixels_give_the_same_numbers(picture: np.ndarray, tmp_path):
    read = []
    for suffix in ("png", "bmp", "tiff", "webp"):
        Image.fromarray(picture).save(tmp_path / f"a.{suffix}", **({"lossless": True} if suffix == "webp" else {}))
        read.append(numbers_of(read_image(tmp_path / f"a.{suffix}"), SIZE))
    assert all(one == pytest.approx(read[0], abs=1e-6) for one in read)  # of float32 sums


def test_a_frame_that_comes_at_the_engines_size_has_the_same_numbers(picture: np.ndarray):
    whole, small = numbers_of(picture, SIZE), numbers_of(resize(picture, SIZE), SIZE)
    apart = {name: abs(whole[name] - small[name]) for name in NUMBERS if name != "compression"}
    assert all(apart[name] < NUMBERS[name].least / 2 for name in apart)


def test_what_a_mask_leaves_out_moves_nothing(picture: np.ndarray):
    inside = np.zeros(picture.shape[:2], bool)
    inside[48:208, 48:208] = True
    clutter = picture.copy()
    clutter[:44], clutter[:, 212:] = 200, (90, 10, 10)
    assert numbers_of(clutter, SIZE, inside) == pytest.approx(numbers_of(picture, SIZE, inside), abs=1e-6)
    assert numbers_of(clutter, SIZE) != pytest.approx(numbers_of(picture, SIZE), abs=1e-2)


@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_flat_or_narrow_frame_has_finite_numbers(level: int):
    for shape in ((64, 64, 3), (16, 20, 3)):
        assert np.isfinite(list(numbers_of(np.full(shape, level, np.uint8), SIZE).values())).all()
