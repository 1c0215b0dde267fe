"""What is in an archive: folders, tars, damaged tars, URLs."""

import os
from pathlib import Path

import numpy as np
import pytest

from runtime.archive.items import Item
from runtime.archive.listing import list_archive
from runtime.archive.storage import Store
from runtime.common.errors import UserError
from tests.support.archives import picture, webdataset, write_pictures, write_tar
from tests.support.marked_log import png


def _contents(archive: Path | str) -> dict[str, bytes]:
    store = Store(str(archive))
    return {item.name: store.fetch(item) for item in list_archive(str(archive))}


def test_a_folder_with_folders_below_and_what_is_passed_over(tmp_path: Path):
    write_pictures(tmp_path / "archive", 5)
    for name in (".hidden.png", "notes.txt", "@eaDir/x.png", ".cache/y.png", "__MACOSX/z.png"):
        (tmp_path / "archive" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "archive" / name).write_bytes(b"x")
    found = _contents(tmp_path / "archive")
    assert list(found) == ["001.png", "002.png", "004.png", "below/000.png", "below/003.png"]
    assert all(content == (tmp_path / "archive" / name).read_bytes() for name, content in found.items())


def test_names_that_are_no_text_are_read_and_written(tmp_path: Path):
    name = os.fsdecode(b"caf\xe9.png")
    try:
        (tmp_path / name).write_bytes(b"x")
    except OSError:
        pytest.skip("a file system that takes no such name")
    assert _contents(tmp_path) == {"caf\\udce9.png": b"x"}


def test_tars_are_read_by_where_their_members_lie(tmp_path: Path):
    folder = tmp_path / "archive"
    write_pictures(folder, 2)
    webdataset(folder / "shards" / "a.tar", range(3))
    write_tar(folder / "long.TAR", {"x" * 150 + "/deep.JPG": b"long", "no.txt": b"no", "./.hid.png": b"no"})
    found = _contents(folder)
    assert found.pop("001.png") and found.pop("below/000.png")
    assert found.pop(f"long.TAR/{'x' * 150}/deep.JPG") == b"long"
    assert found == {f"shards/a.tar/{number:06d}.png": png(picture(number)) for number in range(3)}
    assert _contents(folder / "shards" / "a.tar") == {
        name.removeprefix("shards/"): content for name, content in found.items()
    }


@pytest.mark.parametrize("damage", ["cut in a member", "cut in a header", "header overwritten", "no tar at all"])
def test_a_damaged_tar_is_told_and_what_is_before_the_damage_is_there(tmp_path: Path, damage: str):
    whole = webdataset(tmp_path / "whole.tar", range(4)).read_bytes()
    items = list_archive(str(tmp_path / "whole.tar"))
    third = items[2]
    assert third.size is not None
    cut = {
        "cut in a member": whole[: third.offset + third.size // 2],
        "cut in a header": whole[: third.offset - 300],
        "header overwritten": whole[: third.offset - 512] + bytes(range(256)) * 2 + whole[third.offset :],
        "no tar at all": bytes(range(1, 256)) * 40,
    }[damage]
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / "one.tar").write_bytes(cut)
    write_pictures(tmp_path / "archive", 2)
    found = {item.name: item for item in list_archive(str(tmp_path / "archive"))}
    assert {"001.png", "below/000.png"} <= set(found)  # the others are there all the same
    told = [item for item in found.values() if item.fault]
    store = Store(str(tmp_path / "archive"))
    if damage == "cut in a member":  # which is listed, and says so when it is read
        with pytest.raises(UserError, match=r"must be there as a whole; found \d+ of \d+ bytes"):
            store.fetch(found["one.tar/000002.png"])
    else:
        [item] = told
        assert item.name == "one.tar" and "one.tar must be a whole tar" in item.fault
    before = [] if damage == "no tar at all" else [0, 1]
    for number in before:
        assert store.fetch(found[f"one.tar/{number:06d}.png"]) == png(picture(number))


def test_a_whole_tar_has_no_fault_also_without_its_end_mark(tmp_path: Path):
    whole = webdataset(tmp_path / "whole.tar", range(3))
    assert len(list_archive(str(whole))) == 3
    *_, last = list_archive(str(whole))
    assert last.size is not None
    end = -(-(last.offset + last.size) // 512) * 512
    label = 1024  # the header and the label behind it
    (tmp_path / "endless.tar").write_bytes(whole.read_bytes()[: end + label])
    assert [item.fault for item in list_archive(str(tmp_path / "endless.tar"))] == ["", "", ""]


def test_what_is_no_archive_is_one_line(tmp_path: Path):
    for name, told in (
        ("nothing", "found no such file"),
        ("a.txt", "found another file"),
        ("a.tar.gz", "must be a .tar that is not compressed"),
        ("empty", "must hold images"),
    ):
        if name == "empty":
            (tmp_path / name).mkdir()
        elif name != "nothing":
            (tmp_path / name).write_bytes(b"x")
        with pytest.raises(UserError, match=told):
            list_archive(str(tmp_path / name))
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / "a.tgz").write_bytes(b"x")
    [item] = list_archive(str(tmp_path / "archive"))
    assert "not compressed" in item.fault


def test_urls_by_fsspec(tmp_path: Path):
    fsspec = pytest.importorskip("fsspec", reason="fsspec (extra archive)")
    folder = write_pictures(tmp_path / "archive", 4)
    webdataset(folder / "a.tar", range(2))
    local = _contents(folder)
    assert _contents(f"file://{folder}") == local
    memory = fsspec.filesystem("memory")
    for path in folder.rglob("*.*"):
        memory.pipe(f"/plant/{path.relative_to(folder)}", path.read_bytes())
    try:
        assert _contents("memory://plant") == local
        assert set(_contents("memory://plant/a.tar")) == {"a.tar/000000.png", "a.tar/000001.png"}
    finally:
        memory.rm("/plant", recursive=True)
    with pytest.raises(UserError, match="memory://plant must hold images"):
        list_archive("memory://plant")
    with pytest.raises(UserError, match="must be an address that fsspec can open; found Protocol not known"):
        list_archive("nonsense://x")


def test_secrets_of_an_address_are_not_shown():
    pytest.importorskip("fsspec", reason="fsspec (extra archive)")
    with pytest.raises(UserError) as error:
        list_archive("nonsense://user:secret@host/x?key=hidden")
    assert "secret" not in str(error.value) and "hidden" not in str(error.value)


class _Failing:
    """A file system that fails so many times, then gives what it has."""

    def __init__(self, times: int, error: Exception) -> None:
        self.times, self.error, self.asked = times, error, 0

    def size(self, place: str) -> int:
        return 3

    def cat_file(self, place: str) -> bytes:
        self.asked += 1
        if self.asked <= self.times:
            raise self.error
        return b"abc"


@pytest.mark.parametrize(
    ("times", "error", "asked"),
    [(2, OSError("reset"), 3), (9, OSError("reset"), 4), (9, FileNotFoundError("x"), 1), (9, PermissionError("x"), 1)],
)
def test_what_fails_for_a_moment_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, times: int, error: Exception, asked: int
):
    monkeypatch.setattr("runtime.archive.storage.PAUSES_S", (0.0, 0.0, 0.0))
    store = Store("here")
    failing = _Failing(times, error)
    monkeypatch.setattr(store, "_filesystem", failing)
    if asked > times:
        assert store.fetch(Item("a.png", "a.png")) == b"abc"
    else:
        with pytest.raises(UserError, match=r"a\.png must be there to read"):
            store.fetch(Item("a.png", "a.png"))
    assert failing.asked == asked


def test_a_file_is_bounded_by_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "a.png").write_bytes(np.zeros(1000, np.uint8).tobytes())
    monkeypatch.setattr("runtime.images.size_limit.memory_bytes", lambda: 1500)
    with pytest.raises(UserError, match="an image file may have 750 bytes here; found 1000"):
        Store(str(tmp_path)).fetch(Item("a.png", str(tmp_path / "a.png")))
