"""A set of 16-bit images that stays in a corner of its scale is told of, with what mends it."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from runtime.images.preprocess import ReadOptions
from train.data.brightness import say_if_dark

RNG = np.random.default_rng(0)


def images(folder: Path, highest: int, dtype: type = np.uint16) -> list[Path]:
    paths = [folder / f"{index}.png" for index in range(5)]
    for path in paths:
        Image.fromarray(RNG.integers(0, highest + 1, (30, 30)).astype(dtype)).save(path)
    return paths


@pytest.mark.parametrize(
    ("highest", "cure"), [(4095, "--white 4095 if the camera has 12 bits"), (1023, "--white 1023")]
)
def test_a_dark_set_is_told_with_the_option(
    highest: int, cure: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    say_if_dark(images(tmp_path, highest), ReadOptions())
    said = capsys.readouterr().err
    assert said.startswith("5 images of 16 bits use ") and f"of 256 levels; train with {cure}" in said


def test_nothing_is_said_of_sets_that_use_their_scale(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    say_if_dark(images(tmp_path, 4095), ReadOptions(white=4095))
    say_if_dark(images(tmp_path, 65535), ReadOptions())
    say_if_dark(images(tmp_path, 40, np.uint8), ReadOptions())
    say_if_dark([], ReadOptions())
    assert capsys.readouterr().err == ""


def test_one_bright_image_is_enough(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = images(tmp_path, 4095)
    Image.fromarray(np.full((4, 4), 40000, np.uint16)).save(paths[3])
    say_if_dark(paths, ReadOptions())
    assert capsys.readouterr().err == ""
