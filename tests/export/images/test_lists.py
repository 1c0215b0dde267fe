"""Lists of images: one's own as CSV and JSON, VisA's and Real-IAD's, and what is wrong with a list in one line."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from export.images.labelled import labelled_images, read_mask
from export.images.parity_images import read_labelled
from runtime.common.errors import UserError
from train.data.open import Dataset, list_classes, open_dataset

SIZE = (8, 12)


def picture(path: Path, value: int = 90) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (12, 8), (value, value, value)).save(path)
    return path


def mask(path: Path, column: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("L", (12, 8))
    image.paste(255, (column, 0, column + 1, 8))
    image.save(path)
    return path


def parts(root: Path) -> None:
    for name in ("a/0.png", "a/1.png", "b/0.png", "b/1.png"):
        picture(root / name)
    mask(root / "masks/1.png", 3)
    mask(root / "masks/several/000.png", 3)
    mask(root / "masks/several/001.png", 7)


ROWS = "image,label,mask,split\na/0.png,good,,train\na/1.png,OK,,train\nb/0.png,0,,test\nb/1.png,cut,masks/1.png,test\n"
ENTRIES = [
    {"path": "a/0.png", "label": 0, "split": "train"},
    {"path": "a/1.png", "label": False, "split": "train"},
    {"path": "b/0.png", "label": "normal", "split": "test", "mask": None},
    {"path": "b/1.png", "label": "cut", "split": "test", "mask": ["masks/several/000.png", "masks/several/001.png"]},
]


def columns(dataset: Dataset) -> list[int]:
    truth = next(read_mask(image, SIZE) for image in dataset.test if image.anomalous)
    assert truth is not None
    return [int(column) for column in np.flatnonzero(truth.any(axis=0))]


LISTS: dict[str, tuple[str, str, list[int]]] = {
    "CSV": ("list.csv", ROWS, [3]),
    "from Excel": ("list.csv", "\ufeff" + ROWS.replace(",", ";").replace("\n", "\r\n"), [3]),
    "other names": ("list.CSV", ROWS.replace("image,label,mask", "Image_Path, DEFECT ,mask_path"), [3]),
    "tabs, a blank line": ("list.csv", ROWS.replace(",", "\t") + "\n\n", [3]),
    "a folder of masks": ("list.csv", ROWS.replace("masks/1.png", "masks/several"), [3, 7]),
    "JSON": ("list.json", json.dumps(ENTRIES), [3, 7]),
    "JSON by split": ("list.json", json.dumps({"train": ENTRIES[:2], "test": ENTRIES[2:]}), [3, 7]),
}


@pytest.mark.parametrize("name", LISTS)
def test_a_list_says_what_its_images_are(name: str, tmp_path: Path) -> None:
    file, text, marked = LISTS[name]
    parts(tmp_path)
    (tmp_path / file).write_bytes(text.encode())
    dataset = open_dataset(tmp_path / file)
    assert [path.relative_to(tmp_path).as_posix() for path in dataset.train] == ["a/0.png", "a/1.png"]
    assert [(image.path.name, image.defect) for image in dataset.test] == [("0.png", "good"), ("1.png", "cut")]
    assert columns(dataset) == marked
    assert dataset.origin == f"{tmp_path.name}/list" and dataset.paper_size is None
    assert tuple(labelled_images(tmp_path / file)) == dataset.test
    assert [found is None for found in read_labelled(tmp_path / file, SIZE).masks] == [False, False]
    if not file.endswith("CSV"):  # its suffix in small letters may be left out
        assert open_dataset(tmp_path / "list") == dataset


def test_a_list_of_names_alone_is_good_images(tmp_path: Path) -> None:
    parts(tmp_path)
    (tmp_path / "list.csv").write_text("image\na/0.png\nb/0.png\n")
    dataset = open_dataset(tmp_path / "list.csv")
    assert (len(dataset.train), dataset.test) == (2, ())


def test_the_hash_of_a_list_is_that_of_its_images(tmp_path: Path) -> None:
    parts(tmp_path)
    picture(tmp_path / "a/1.png", 10)
    (tmp_path / "list.csv").write_text(ROWS)
    first = open_dataset(tmp_path / "list.csv").sha256()
    (tmp_path / "list.csv").write_text(ROWS.replace("a/1.png", "a/../a/1.png"))
    assert open_dataset(tmp_path / "list.csv").sha256() == first
    (tmp_path / "list.csv").write_text(ROWS.replace("a/1.png", "b/0.png", 1).replace("b/0.png,0", "a/1.png,0"))
    assert open_dataset(tmp_path / "list.csv").sha256() != first


def test_an_image_elsewhere_must_be_written_out_and_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parts(tmp_path / "here")
    other = picture(tmp_path / "there/9.png")
    (tmp_path / "here/list.csv").write_text(ROWS.replace("a/1.png", str(other)))
    dataset = open_dataset(tmp_path / "here/list.csv")
    assert other in dataset.train and len(dataset.sha256()) == 64
    assert f"1 images of {tmp_path / 'here/list.csv'} lie elsewhere, the first is {other}" in capsys.readouterr().err
    for path in ("../there/9.png", "a/../../there/9.png"):
        (tmp_path / "here/list.csv").write_text(ROWS.replace("a/1.png", path))
        with pytest.raises(UserError, match=r"line 3 of .*list\.csv must stay in the list's folder; found .*9\.png"):
            open_dataset(tmp_path / "here/list.csv")


WRONG: dict[str, tuple[str, str, str]] = {
    "no such image": (
        "b/0.png",
        "b/9.png",
        r"line 4 of .*list\.csv must name a file that is there; found no .*b/9\.png",
    ),
    "backslashes": ("b/0.png", "b\\0.png", r"line 4 .*; found no .*; write folders with /, not \\"),
    "no such mask": ("masks/1.png", "masks/9.png", r"line 5 .* found no .*masks/9\.png"),
    "no name": ("b/0.png", " ", "line 4 of .* must have a path of its image; found ''"),
    "its own mask": ("masks/1.png", "b/1.png", "line 5 .* must have a mask of its own; found the image itself"),
    "no label": ("b/0.png,0", "b/0.png,", "line 4 .* must have a label; found none; good, or the defect's name"),
    "no split": ("cut,masks/1.png,test", "cut,masks/1.png,", "line 5 .* must have a split, train or test; found none"),
    "another split": (",train\nb", ",held out\nb", "line 3 .* train or test; found held out"),
    "a defect to train on": (
        "a/1.png,OK",
        "a/1.png,cut",
        "line 3 .* must be good, .*; found cut; set its split",
    ),
    "twice": ("a/1.png", "a/0.png", r"line 3 .* must name an image of its own; found that of line 2"),
    "twice, by a detour": ("b/0.png", "b/../a/0.png", "line 4 .* found that of line 2"),
    "too many columns": ("b/0.png,0", "b/0.png,0,", "line 4 .* must have 4 columns, as the header has; found 5"),
    "no image column": ("image,", "photo,", r"header of .*list\.csv must have a column image; found photo, label"),
    "two image columns": ("image,label", "image,path", "one column for the image; found image and path"),
    "an open quote": ("good", '"good', r"line \d of .*list\.csv must be CSV; found"),
    "nothing": (ROWS.partition("\n")[2], "", r"list\.csv must list images; found none"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_with_a_list_is_said_in_a_line(name: str, tmp_path: Path) -> None:
    parts(tmp_path)
    old, new, message = WRONG[name]
    assert old in ROWS
    (tmp_path / "list.csv").write_text(ROWS.replace(old, new, 1))
    with pytest.raises(UserError, match=message) as caught:
        open_dataset(tmp_path / "list.csv")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "must be JSON; found Expecting value"),
        ("[" * 100_000, "must be JSON"),
        ("3", "must hold a list of images; found int"),
        ('{"images": []}', "must hold a list of images, or such lists as train and test; found images"),
        ('{"train": {}}', "such lists as train and test"),
        ("[3]", r"entry 1 of .*list\.json must be an object with image, label, mask, split; found 3"),
        ('[{"image": 3, "split": "train"}]', "entry 1 .* must have a path of its image; found 3"),
        ('{"train": [{"image": "a/0.png"}], "test": [{"image": "b/0.png"}]}', "entry 1 of test .* must have a label"),
        ("[]", "must list images; found none"),
    ],
)
def test_what_is_wrong_with_json_is_said_in_a_line(text: str, message: str, tmp_path: Path) -> None:
    parts(tmp_path)
    (tmp_path / "list.json").write_text(text)
    with pytest.raises(UserError, match=message):
        open_dataset(tmp_path / "list.json")


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_bytes("image\nmüll.png\n".encode("latin-1"))
    with pytest.raises(UserError, match="must be text in UTF-8; found byte 7 is none; save it as UTF-8"):
        open_dataset(tmp_path / "list.csv")


def test_a_validation_split_is_left_out_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parts(tmp_path)
    (tmp_path / "list.csv").write_text(ROWS.replace("OK,,train", "OK,,validation"))
    assert len(open_dataset(tmp_path / "list.csv").train) == 1
    assert "1 images of split validation" in capsys.readouterr().err


def test_the_objects_of_a_list_are_classes(tmp_path: Path) -> None:
    parts(tmp_path)
    rows = [line.split(",") for line in ROWS.splitlines()]
    objects = ["object", "nut", "bolt", "nut", "nut"]
    text = "\n".join(",".join([name, *row]) for name, row in zip(objects, rows, strict=True))
    (tmp_path / "list.csv").write_text(text)
    assert list_classes(tmp_path / "list.csv") == ("bolt", "nut")
    nut = open_dataset(tmp_path / "list.csv/nut")
    assert (len(nut.train), len(nut.test), nut.origin) == (1, 2, f"{tmp_path.name}/list/nut")
    with pytest.raises(UserError, match=r"must list images of screw; found none"):
        open_dataset(tmp_path / "list.csv/screw")
    (tmp_path / "list.csv").write_text(text.replace("bolt", "../bolt"))
    with pytest.raises(UserError, match=r"line 3 of .* must name an object without / and \\; found \.\./bolt"):
        list_classes(tmp_path / "list.csv")


def test_the_lists_of_a_folder_are_classes(tmp_path: Path) -> None:
    parts(tmp_path)
    (tmp_path / "bolt.csv").write_text(ROWS)
    (tmp_path / "nut.json").write_text(json.dumps(ENTRIES))
    (tmp_path / "record.json").write_text('{"seed": 1}')  # no list of images
    assert list_classes(tmp_path) == ("bolt", "nut")
    assert [len(open_dataset(tmp_path / name).train) for name in ("bolt", "nut")] == [2, 2]
    (tmp_path / "nut.csv").write_text(ROWS)
    with pytest.raises(UserError, match="must hold one list nut; found 2"):
        list_classes(tmp_path)
    picture(tmp_path / "screw/train/good/0.png")  # folders are what they were
    assert list_classes(tmp_path) == ("screw",)
    (tmp_path / "bolt.csv").write_text(ROWS)
    with pytest.raises(UserError, match="tell objects apart by a column object, category or product; found none"):
        list_classes(tmp_path / "bolt.csv")


def real_iad(root: Path, size: str = "realiad_512") -> Path:
    """Write one category as Real-IAD is laid out: two cameras, each with good and defective views."""
    content: dict[str, object] = {"meta": {"normal_class": "OK", "prefix": "mint/", "pre_transform": False}}
    lists: dict[str, list[dict[str, object]]] = {"train": [], "test": []}
    for number, (split, kind) in enumerate((("train", "OK"), ("train", "OK"), ("test", "OK"), ("test", "AK"))):
        for camera in ("C1", "C2"):
            folder = "OK" if kind == "OK" else f"NG/{kind}"
            stem = f"{folder}/S{number:04}/mint_{number:04}_{kind}_{camera}_20231027"
            picture(root / size / "mint" / f"{stem}.jpg")
            entry = {"category": "mint", "anomaly_class": kind, "image_path": f"{stem}.jpg", "mask_path": None}
            if kind != "OK":
                entry["mask_path"] = f"{stem}.png"
                mask(root / size / "mint" / f"{stem}.png", 3 if camera == "C1" else 5)
            lists[split].append(entry)
    file = root / "realiad_jsons/realiad_jsons/mint.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content | lists))
    return file


def test_real_iad_is_read_by_its_json(tmp_path: Path) -> None:
    file = real_iad(tmp_path)
    by_list, by_folder = open_dataset(file), open_dataset(tmp_path / "realiad_512/mint")
    assert by_list == by_folder and by_list.origin == "mint"
    assert (len(by_list.train), [image.defect for image in by_list.test]) == (4, ["good", "good", "AK", "AK"])
    assert list_classes(tmp_path / "realiad_512") == ("mint",) == list_classes(file.parent)
    assert open_dataset(file.parent / "mint") == by_list
    assert list_classes(file) == ("C1", "C2")  # a model for each camera
    second = open_dataset(file / "C2")
    assert (len(second.train), len(second.test), columns(second)) == (2, 2, [5])
    real_iad(tmp_path, "realiad_1024")
    with pytest.raises(UserError, match=r"mint\.json must have its images in one folder realiad_SIZE/mint .*; give"):
        open_dataset(file)
    assert open_dataset(tmp_path / "realiad_1024/mint").train != by_list.train
    file.unlink()
    with pytest.raises(UserError, match=r"is a category of Real-IAD and needs .*realiad_jsons/mint\.json, which says"):
        open_dataset(tmp_path / "realiad_512/mint")


def test_a_real_iad_list_that_leaves_its_folder_is_refused(tmp_path: Path) -> None:
    file = real_iad(tmp_path)
    text = file.read_text()
    for old, new in (('"mint/"', '"../mint/"'), ('"OK/S0001', '"../../OK/S0001')):
        file.write_text(text.replace(old, new, 1))
        with pytest.raises(UserError, match="must stay in the list's folder"):
            open_dataset(file)


@pytest.mark.parametrize("stated", [True, False])
def test_visa_is_read_by_its_table(stated: bool, tmp_path: Path) -> None:
    root = tmp_path / "candle"
    for name in ("Normal/0000.JPG", "Normal/0001.JPG", "Anomaly/000.JPG"):
        picture(root / "Data/Images" / name)
    mask(root / "Data/Masks/Anomaly/000.png", 3)
    marked = "candle/Data/Masks/Anomaly/000.png" if stated else ""
    lines = [
        "object,split,label,image,mask",
        "candle,train,normal,candle/Data/Images/Normal/0000.JPG,",
        "candle,test,normal,candle/Data/Images/Normal/0001.JPG,",
        f"candle,test,anomaly,candle/Data/Images/Anomaly/000.JPG,{marked}",
        "fryum,train,normal,fryum/Data/Images/Normal/0000.JPG,",  # not unpacked
    ]
    (tmp_path / "split_csv").mkdir()
    (tmp_path / "split_csv/1cls.csv").write_text("\n".join(lines))
    dataset = open_dataset(root)
    assert ([path.name for path in dataset.train], dataset.origin) == (["0000.JPG"], "candle")
    assert [image.defect for image in dataset.test] == ["good", "anomaly"] and columns(dataset) == [3]
    assert list_classes(tmp_path) == ("candle",)


def test_readers_agree_whatever_way_a_set_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts(tmp_path)
    (tmp_path / "list.csv").write_text(ROWS)
    monkeypatch.chdir(tmp_path)
    relative: Callable[[Dataset], list[Path]] = lambda dataset: [path.resolve() for path in dataset.train]  # noqa: E731
    assert relative(open_dataset(Path("list.csv"))) == relative(open_dataset(tmp_path / "list.csv"))
    assert relative(open_dataset(Path("list"))) == relative(open_dataset(tmp_path / "list.csv"))


def test_a_mask_of_two_images_is_refused(tmp_path: Path) -> None:
    parts(tmp_path)
    (tmp_path / "list.csv").write_text(ROWS + "a/../b/2.png,cut,masks/1.png,test\n")
    picture(tmp_path / "b/2.png")
    with pytest.raises(UserError, match=r"masks/1\.png must belong to one image of .*list\.csv; found 2"):
        open_dataset(tmp_path / "list.csv")


def test_a_name_that_stands_twice_in_json_is_refused(tmp_path: Path) -> None:
    parts(tmp_path)
    text = json.dumps(ENTRIES).replace('"label": "cut"', '"label": "good", "label": "cut"')
    (tmp_path / "list.json").write_text(text)
    with pytest.raises(UserError, match="'label' stands there twice"):
        open_dataset(tmp_path / "list.json")
