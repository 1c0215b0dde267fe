"""The generator of large frames: real pixels in their cells, masks with them, and no image in two splits."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from export.images.labelled import labelled_images, read_mask
from runtime.images.folders import list_images
from runtime.images.preprocess import read_image
from tests.support.large_frames import MOST_DEFECTS, Layout, write_frames
from train.synthetic import write_dataset

LAYOUT = Layout(rows=2, columns=3, side=64, train=2, good=2, bad=2)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("large")
    write_dataset(root / "small", train=14, test_good=8, per_defect=2, size=64)
    write_frames(root / "small", root / "frames", root / "parts", LAYOUT)
    return root


def cells(picture: np.ndarray) -> list[bytes]:
    assert picture.shape[:2] == (128, 192)
    return [picture[top : top + 64, left : left + 64].tobytes() for top in (0, 64) for left in (0, 64, 128)]


def test_every_cell_is_one_of_the_images_and_none_is_in_two_splits(written: Path) -> None:
    known = {
        read_image(path).tobytes(): path for path in (written / "small").rglob("*.png") if "truth" not in str(path)
    }
    shown: dict[str, list[Path]] = {}
    for split, count in (("train/good", 2), ("test/good", 2), ("test/bad", 2)):
        frames = list_images(written / "frames" / split)
        assert len(frames) == count
        for path in frames:
            of_frame = [known[cell] for cell in cells(read_image(path))]
            assert len(set(of_frame)) == 6
            shown.setdefault(split, []).extend(of_frame)
    assert not set(shown["train/good"]) & {*shown["test/good"], *shown["test/bad"]}
    assert max(Counter(shown["train/good"]).values()) == 1
    parts = {path.read_bytes() for path in (written / "parts").rglob("*.png") if "truth" not in str(path)}
    assert len(parts) == len({path for split in shown.values() for path in split})


def test_masks_lie_where_the_defects_do(written: Path) -> None:
    small = {
        read_image(image.path).tobytes(): read_mask(image, (64, 64)) for image in labelled_images(written / "small")
    }
    bad = [image for image in labelled_images(written / "frames") if image.anomalous]
    assert len(bad) == 2
    for image in bad:
        mask = read_mask(image, (128, 192))
        assert mask is not None
        found = [small.get(cell) for cell in cells(read_image(image.path))]
        expected = [part if part is not None else np.zeros((64, 64), bool) for part in found]
        assert sum(part.any() for part in expected) == MOST_DEFECTS
        assert cells(mask) == [part.tobytes() for part in expected]


def test_the_same_seed_writes_the_same_frames(written: Path, tmp_path: Path) -> None:
    write_frames(written / "small", tmp_path / "frames", tmp_path / "parts", LAYOUT)
    for path in (written / "frames").rglob("*.png"):
        assert (tmp_path / "frames" / path.relative_to(written / "frames")).read_bytes() == path.read_bytes()
