"""What is used of a folder, and what is not, is always said."""

import re
from pathlib import Path

import pytest
from PIL import Image

from runtime.common.errors import UserError
from runtime.images.folders import describe_ignored, describe_use, list_folders, list_images
from runtime.sources.open import SourceSpec, open_source


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.png", "b.JPG", "below/c.png", "below/deeper/d.png", ".hidden/e.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    for name in ("x.gif", "y.gif", "notes.txt", ".DS_Store", "README"):
        (tmp_path / name).touch()
    (tmp_path / "below/again").symlink_to(tmp_path, target_is_directory=True)  # round and round
    return tmp_path


IGNORED = r"4 files that are no images by their suffix \(\.gif 2, \.txt 1, none 1\), \d images in folders below"


def test_images_used_and_ignored_are_counted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert re.fullmatch(rf"2 images used from {folder}; ignored there: {IGNORED}", describe_use(list_images(folder)))
    assert describe_use(list_images(folder / "below/deeper")).endswith(
        "1 images used from " + str(folder / "below/deeper")
    )
    with open_source(SourceSpec.parse(str(folder))) as source:
        assert len(list(source)) == 2
    assert re.match(rf"2 images used from .*{IGNORED}", capsys.readouterr().err)


def test_a_folder_of_nothing_else_says_what_there_is(folder: Path) -> None:
    for name in ("a.png", "b.JPG"):
        (folder / name).unlink()
    with pytest.raises(UserError, match=rf"must hold images .*; found {IGNORED}; check the folder"):
        open_source(SourceSpec.parse(str(folder)))
    assert [path.name for path in list_folders(folder)] == ["below"]
    assert describe_ignored(folder / ".hidden") == ""
