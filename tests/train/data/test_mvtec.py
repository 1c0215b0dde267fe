"""What a root folder of MVTec AD is taken for, and the sizes that the paper gives its classes."""

from collections import Counter
from pathlib import Path

import pytest

from runtime.common.errors import UserError
from train.data.mvtec import PAPER_INPUT_SIDES, classes, paper_size


def test_the_classes_of_a_root_are_its_folders_with_good_images(tmp_path: Path) -> None:
    for folder in ("screw/train/good", "cable/train/good", "mine/train/good", ".hidden/train/good", "notes", "x/train"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "license.txt").touch()
    assert classes(tmp_path) == ("cable", "mine", "screw")


def test_a_folder_without_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="folder of classes; found no folder"):
        classes(tmp_path / "none")
    with pytest.raises(UserError, match=r"a folder per class.*found none"):
        classes(tmp_path)
    (tmp_path / "train/good").mkdir(parents=True)
    with pytest.raises(UserError, match="found a single class; name its parent folder"):
        classes(tmp_path)


def test_the_papers_sizes_cover_the_fifteen_classes() -> None:
    assert len(PAPER_INPUT_SIDES) == 15
    assert Counter(PAPER_INPUT_SIDES.values()) == {512: 9, 256: 5, 128: 1}  # counted in the reference's README
    assert (paper_size("transistor"), paper_size("screw"), paper_size("mine")) == ((128, 128), (512, 512), None)
