"""The layouts of the data sets that people have: every mask is found, and what is not found is said."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from export.images.labelled import labelled_images, read_mask, read_masks, say_use
from export.images.parity_images import read_labelled
from runtime.common.errors import UserError
from train.data.open import list_classes, open_dataset

SIZE = (8, 12)


def picture(path: Path, value: int = 90, size: tuple[int, int] = (12, 8)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).save(path)


def mask(path: Path, column: int, value: int = 255, size: tuple[int, int] = (12, 8)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("L", size)
    image.paste(value, (column, 0, column + 1, size[1]))
    image.save(path)


def mvtec(mask_name: str) -> Callable[[Path], None]:
    def build(root: Path) -> None:
        picture(root / "train/good/0.png")
        picture(root / "test/good/0.png")
        picture(root / "test/cut/000.png")
        mask(root / "ground_truth/cut" / mask_name, 3)

    return build


def loco(root: Path) -> None:
    picture(root / "train/good/0.png")
    picture(root / "validation/good/0.png")
    picture(root / "test/good/0.png")
    picture(root / "test/logical_anomalies/000.png")
    mask(root / "ground_truth/logical_anomalies/000/000.png", 3, value=240)  # a level for each kind of defect
    mask(root / "ground_truth/logical_anomalies/000/001.png", 7, value=234)


def mvtec_ad_2(root: Path) -> None:
    picture(root / "train/good/000_regular.png")
    picture(root / "test_public/good/000_regular.png")
    picture(root / "test_public/bad/000_regular.png")
    mask(root / "test_public/ground_truth/bad/000_regular_mask.png", 3)
    picture(root / "test_private/000_regular.png")


def btad(root: Path) -> None:
    picture(root / "train/ok/0000.bmp")
    picture(root / "test/ok/0000.bmp")
    picture(root / "test/ko/0001.bmp")
    mask(root / "ground_truth/ko/0001.png", 3)


IN_VISA = (("train", "normal", "Normal/0"), ("test", "normal", "Normal/1"), ("test", "anomaly", "Anomaly/0"))


def visa(root: Path) -> None:
    rows = ["object,split,label,image,mask"]
    for name, label, split in (
        ("Normal/0", "normal", "train"),
        ("Normal/1", "normal", "test"),
        ("Anomaly/0", "x", "test"),
    ):
        file = f"Data/Images/{name}.JPG"
        picture(root / file)
        rows.append(f"{root.name},{split},{'anomaly' if label == 'x' else label},{root.name}/{file},")
    mask(root / "Data/Masks/Anomaly/0.png", 3, value=2)  # numbers its defects
    (root.parent / "split_csv").mkdir()
    (root.parent / "split_csv/1cls.csv").write_text("\n".join([*rows, "fryum,train,normal,fryum/none.JPG,"]))


LAYOUTS = {
    "MVTec AD": (mvtec("000_mask.png"), [3]),
    "same stem": (mvtec("000.png"), [3]),
    "bmp": (mvtec("000_mask.bmp"), [3]),
    "capitals": (mvtec("000_mask.PNG"), [3]),
    "tif": (mvtec("000.TIFF"), [3]),
    "MVTec LOCO, AutoVI": (loco, [3, 7]),
    "MVTec AD 2": (mvtec_ad_2, [3]),
    "BTAD": (btad, [3]),
    "VisA": (visa, [3]),
}


@pytest.mark.parametrize(("build", "columns"), LAYOUTS.values(), ids=LAYOUTS.keys())
def test_images_and_masks_are_found(
    build: Callable[[Path], None], columns: list[int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "candle"
    build(root)
    dataset = open_dataset(root)
    assert len(dataset.train) == 1 and len(dataset.sha256()) == 64
    assert sorted(image.anomalous for image in dataset.test) == [False, True]
    say_use(root, dataset.test)
    truth = next(read_mask(image, SIZE) for image in dataset.test if image.anomalous)
    assert truth is not None and np.flatnonzero(truth.any(axis=0)).tolist() == columns
    images = read_labelled(root, SIZE)
    assert [found is None for found in images.masks] == [False, False]
    assert list_classes(tmp_path) == ("candle",)
    assert "mask" not in capsys.readouterr().err  # nothing to complain of


@pytest.mark.parametrize("name", ["ok", "OK", "Good", "GOOD", "normal"])
def test_good_images_may_be_called_so(name: str, tmp_path: Path) -> None:
    picture(tmp_path / "train" / name / "0.png")
    picture(tmp_path / "test" / name / "0.png")
    picture(tmp_path / "test/cut/0.png")
    dataset = open_dataset(tmp_path)
    assert len(dataset.train) == 1
    assert [(image.defect, image.anomalous) for image in dataset.test if not image.anomalous] == [("good", False)]
    picture(tmp_path / "test/normal_/0.png")  # another word is another class
    assert sum(image.anomalous for image in labelled_images(tmp_path)) == 2
    picture(tmp_path / "test" / ("ok" if name.lower() != "ok" else "good") / "0.png")
    with pytest.raises(UserError, match="must hold one folder of good images"):
        open_dataset(tmp_path)


HIDDEN = [".ipynb_checkpoints", ".thumbnails", "@eaDir", "__MACOSX", "#recycle"]


@pytest.mark.parametrize("name", HIDDEN)
def test_hidden_folders_are_no_classes(name: str, tmp_path: Path) -> None:
    mvtec("000_mask.png")(tmp_path)
    before = open_dataset(tmp_path)
    for parent in ("test", "train", "ground_truth", "ground_truth/cut", "."):
        picture(tmp_path / parent / name / "good.png")
        picture(tmp_path / parent / name / "train/good/0.png")
    assert open_dataset(tmp_path) == before
    assert {image.defect for image in labelled_images(tmp_path)} == {"good", "cut"}
    assert len(read_labelled(tmp_path, SIZE)) == 2
    picture(tmp_path / "classes/screw/train/good/0.png")
    picture(tmp_path / "classes" / name / "train/good/0.png")
    assert list_classes(tmp_path / "classes") == ("screw",)


def test_masks_that_are_missing_or_too_many_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mvtec("000_mask.png")(tmp_path)
    picture(tmp_path / "test/cut/001.png")
    mask(tmp_path / "ground_truth/cut/002_mask.png", 1)
    mask(tmp_path / "ground_truth/scratch/000/000.png", 1)
    mask(tmp_path / "ground_truth/good/000.png", 1)  # a good image has no defect, whatever lies there
    images = labelled_images(tmp_path)
    say_use(tmp_path, images)
    masks = read_masks(images, SIZE)
    said = capsys.readouterr().err
    assert "3 images used from 2 folders; 2 of them are anomalous" in said
    assert "1 of 2 anomalous images have no mask (looked for ground_truth/DEFECT/STEM_mask.png, STEM.png" in said
    assert "so no figure by pixel is given" in said and "test/cut/001.png" in said
    assert "2 masks belong to no image" in said and "002_mask.png" in said and "scratch/000/000.png" in said
    assert [found is None for found in masks] == [False, True, False]


def test_masks_that_cannot_be_right_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mvtec("000_mask.png")(tmp_path)
    picture(tmp_path / "test/cut/001.png")
    Image.new("L", (12, 8)).save(tmp_path / "ground_truth/cut/000_mask.png")
    inverted = Image.new("L", (12, 8), 255)
    inverted.paste(0, (2, 2, 4, 4))
    inverted.save(tmp_path / "ground_truth/cut/001_mask.png")
    black, white, good = read_masks(labelled_images(tmp_path), SIZE)
    said = capsys.readouterr().err
    assert "1 masks mark no pixel of their anomalous image, and count as missing" in said and "000.png" in said
    assert "1 masks mark more than 75% of their image; are they the wrong way round?" in said
    assert black is None and white is not None and white.sum() == 92 and good is not None and not good.any()


def test_a_mask_of_another_shape_is_refused(tmp_path: Path) -> None:
    mvtec("000_mask.png")(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter to view, which the mask is not
    Image.new("RGB", (12, 8)).save(tmp_path / "test/cut/000.png", exif=exif)
    [turned] = [image for image in labelled_images(tmp_path) if image.anomalous]
    expected = r"000_mask\.png must be as large as its image .*000\.png, 12x8 .*; found 8x12 \(height x width\); turn"
    with pytest.raises(UserError, match=expected):
        read_mask(turned, SIZE)
    mask(tmp_path / "ground_truth/cut/000_mask.png", 3, size=(8, 12))  # as the photo is seen
    truth = read_mask(turned, (12, 8))
    assert truth is not None and truth[:, 3].all()
    loco_root = tmp_path / "loco"
    loco(loco_root)
    mask(loco_root / "ground_truth/logical_anomalies/000/001.png", 1, size=(6, 6))
    [parts] = [image for image in labelled_images(loco_root) if image.anomalous]
    with pytest.raises(UserError, match=r"001\.png must be as large as 000\.png, 8x12 .*; found 6x6"):
        read_mask(parts, SIZE)


def test_a_class_of_visa_needs_its_split(tmp_path: Path) -> None:
    picture(tmp_path / "candle/Data/Images/Normal/0.JPG")
    with pytest.raises(UserError, match=r"split_csv/1cls\.csv, which says what to train on; found no such file"):
        open_dataset(tmp_path / "candle")


def test_a_photo_that_half_a_turn_makes_upright_is_named_where_its_mask_may_be_upside_down(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mvtec("000_mask.png")(tmp_path)
    read_masks(labelled_images(tmp_path), SIZE)
    assert "turned" not in capsys.readouterr().err
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.new("RGB", (12, 8)).save(tmp_path / "test/cut/000.png", exif=exif)
    read_masks(labelled_images(tmp_path), SIZE)
    said = capsys.readouterr().err
    assert "1 images are turned by EXIF, and their masks are not" in said and "000.png" in said
    truth = tmp_path / "ground_truth/cut/000_mask.png"
    Image.open(truth).save(truth, exif=exif)
    read_masks(labelled_images(tmp_path), SIZE)
    assert "turned" not in capsys.readouterr().err


@pytest.mark.parametrize("second", ["000.png", "000_mask.bmp", "000/000.png"])
def test_two_masks_of_one_image_are_refused(second: str, tmp_path: Path) -> None:
    mvtec("000_mask.png")(tmp_path)
    mask(tmp_path / "ground_truth/cut" / second, 3)
    with pytest.raises(UserError, match=r"cut must hold one mask for each image; found .*000.* and .*; remove one"):
        labelled_images(tmp_path)


@pytest.mark.parametrize("folder", ["train/good", "test/cut", "test/good"])
@pytest.mark.parametrize("name", ["000_mask.png", "000.bmp"])
def test_masks_among_the_images_are_refused(folder: str, name: str, tmp_path: Path) -> None:
    mvtec("000_mask.png")(tmp_path)
    photo = np.random.default_rng(0).integers(0, 256, (8, 12, 3), np.uint8)
    Image.fromarray(photo).save(tmp_path / folder / "000.png")
    mask(tmp_path / folder / name, 3)
    with pytest.raises(UserError, match=rf"must hold images alone; found {name}, a mask of 000\.png; move masks"):
        open_dataset(tmp_path)
