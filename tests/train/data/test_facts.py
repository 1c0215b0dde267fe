"""What training says of its images as pictures."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from runtime.images.facts import unfit
from runtime.images.preprocess import PLAIN, read_image
from train.data.facts import facts_of


def test_a_black_picture_among_the_good_ones_is_named_and_widens_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng, paths = np.random.default_rng(0), []
    for number in range(12):
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(rng.integers(90, 150, (32, 48, 3)).astype(np.uint8)).save(paths[-1])
    plain = facts_of(paths, PLAIN)
    for name, size in (("black", (48, 32)), ("tiny", (3, 2))):
        paths.append(tmp_path / f"{name}.png")
        Image.new("RGB", size).save(paths[-1])
    facts = facts_of(paths, PLAIN)
    assert facts.ranges == plain.ranges
    assert "2 training images show nothing" in capsys.readouterr().err
    dark = rng.integers(0, 9, (32, 48, 3)).astype(np.uint8)
    assert unfit(dark, facts).startswith("the frame's brightness is")


def test_where_no_picture_shows_anything_they_are_measured_all_the_same(tmp_path: Path) -> None:
    Image.new("RGB", (48, 32)).save(tmp_path / "black.png")
    facts = facts_of([tmp_path / "black.png"], PLAIN)
    assert facts.count == 1
    assert unfit(read_image(tmp_path / "black.png"), facts)
