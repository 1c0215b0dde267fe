"""What a data folder is taken for, and what it may not be."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from runtime.common.errors import UserError
from runtime.images.preprocess import resize
from train.data.open import ImageCache, list_classes, open_dataset, read_mask, rotate, split_held_out


def picture(path: Path, value: int = 128, size: tuple[int, int] = (12, 8)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).save(path)
    return path


@pytest.fixture
def mvtec(tmp_path: Path) -> Path:
    for index in range(4):
        picture(tmp_path / f"train/good/{index}.png", index)
    picture(tmp_path / "test/good/0.png")
    picture(tmp_path / "test/cut/0.png")
    picture(tmp_path / "test/cut/1.png")
    mask = Image.new("L", (12, 8))
    mask.paste(255, (6, 0, 12, 8))
    (tmp_path / "ground_truth/cut").mkdir(parents=True)
    mask.save(tmp_path / "ground_truth/cut/0_mask.png")
    (tmp_path / "train/good/notes.txt").write_text("not an image")
    return tmp_path


def test_an_mvtec_folder_gives_train_test_and_masks(mvtec: Path) -> None:
    dataset = open_dataset(mvtec)
    assert [path.name for path in dataset.train] == ["0.png", "1.png", "2.png", "3.png"]
    assert [(image.defect, image.anomalous) for image in dataset.test] == [
        ("cut", True),
        ("cut", True),
        ("good", False),
    ]
    with_mask, without, good = dataset.test
    half = read_mask(with_mask, (4, 6))
    assert half is not None
    assert half.tolist() == [[False] * 3 + [True] * 3] * 4
    assert read_mask(without, (4, 6)) is None
    assert not read_mask(good, (4, 6)).any()


def test_a_plain_folder_is_good_images(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    dataset = open_dataset(tmp_path)
    assert (len(dataset.train), dataset.test) == (1, ())


def test_the_data_hash_follows_bytes_and_names(mvtec: Path) -> None:
    before = open_dataset(mvtec).sha256()
    assert open_dataset(mvtec).sha256() == before
    picture(mvtec / "train/good/0.png", 9)
    changed = open_dataset(mvtec).sha256()
    (mvtec / "train/good/3.png").rename(mvtec / "train/good/4.png")
    assert len({before, changed, open_dataset(mvtec).sha256()}) == 3


def test_missing_empty_and_misnamed_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no folder"):
        open_dataset(tmp_path / "none")
    with pytest.raises(UserError, match="must hold good images"):
        open_dataset(tmp_path)
    picture(tmp_path / "train/fine/0.png")
    with pytest.raises(UserError, match=r"a folder 'good' \(or ok, or normal\); found fine"):
        open_dataset(tmp_path)


def test_held_out_images_are_apart_and_seeded() -> None:
    paths = [Path(str(index)) for index in range(20)]
    train, held_out = split_held_out(paths, 0.2, seed=3)
    assert (len(train), len(held_out)) == (16, 4)
    assert sorted([*train, *held_out]) == sorted(paths)
    assert split_held_out(paths, 0.2, seed=3) == (train, held_out)
    assert split_held_out(paths, 0.2, seed=4) != (train, held_out)
    assert [len(part) for part in split_held_out(paths[:2], 0.9, seed=0)] == [1, 1]
    with pytest.raises(UserError, match="at least 2"):
        split_held_out(paths[:1], 0.2, seed=0)


def test_the_cache_gives_the_resized_image_kept_or_not(mvtec: Path) -> None:
    paths = open_dataset(mvtec).train
    expected = resize(np.asarray(Image.open(paths[2])), (4, 6))
    for limit in (0, 1 << 20):
        cache = ImageCache(paths, (4, 6), limit_bytes=limit)
        assert all(np.array_equal(cache.image(2), expected) for _ in range(2))
        assert cache.batch([2, 0]).shape == (2, 4, 6, 3)


def test_a_broken_image_is_named(mvtec: Path) -> None:
    path = mvtec / "train/good/1.png"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(UserError, match=r"1\.png"):
        ImageCache(open_dataset(mvtec).train, (4, 6)).image(1)


def test_a_rotation_turns_about_the_centre() -> None:
    image = np.zeros((9, 9, 3), np.uint8)
    image[1, 4] = 200
    assert rotate(image, 90)[4, 1].tolist() == [200, 200, 200]  # counter-clockwise, as torchvision's


def test_a_folder_of_test_images_alone_is_enough_to_evaluate(tmp_path: Path) -> None:
    picture(tmp_path / "test/good/0.png")
    dataset = open_dataset(tmp_path)
    assert (dataset.train, [image.defect for image in dataset.test]) == ((), ["good"])


def test_two_images_may_not_share_a_mask(mvtec: Path) -> None:
    picture(mvtec / "test/cut/0.jpg")
    with pytest.raises(UserError, match=r"0_mask\.png must belong to one test image; found 2"):
        open_dataset(mvtec)
    (mvtec / "ground_truth/cut/0_mask.png").unlink()  # without a mask there is nothing to confuse
    assert len(open_dataset(mvtec).test) == 4


def test_what_lies_about_a_data_folder_is_left_alone(mvtec: Path) -> None:
    before = open_dataset(mvtec)
    (mvtec / "test/readme.txt").write_text("no class")
    picture(mvtec / "train/good/.hidden.png")
    (mvtec / "train/good/folder.png").mkdir()
    (mvtec / "test/empty").mkdir()
    picture(mvtec / "ground_truth/good/0.png")  # a good image has no defect, whatever lies there
    assert open_dataset(mvtec) == before


def test_a_broken_mask_is_named(mvtec: Path) -> None:
    path = mvtec / "ground_truth/cut/0_mask.png"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(UserError, match=r"0_mask\.png must be a whole image"):
        read_mask(open_dataset(mvtec).test[0], (4, 6))


def test_a_sixteen_bit_mask_is_scaled_not_clipped(mvtec: Path) -> None:
    levels = np.zeros((8, 12), np.uint16)
    levels[:, 6:], levels[:, :6] = 65535, 3000  # 3000 of 65535 is dark, though it would clip to 255
    Image.fromarray(levels).save(mvtec / "ground_truth/cut/0_mask.png")
    mask = read_mask(open_dataset(mvtec).test[0], (8, 12))
    assert mask is not None and (mask == (levels > 30000)).all()


def test_a_dataset_says_how_the_paper_takes_its_images(mvtec: Path) -> None:
    plain = open_dataset(mvtec)
    assert (plain.mean, plain.std, plain.paper_size) == ((), (), None)  # normalised as the encoder wants
    (mvtec / "transistor").mkdir()
    for part in ("train", "test", "ground_truth"):
        (mvtec / part).rename(mvtec / "transistor" / part)
    assert open_dataset(mvtec / "transistor").paper_size == (128, 128)
    assert list_classes(mvtec) == ("transistor",)
