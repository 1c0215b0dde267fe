import errno
import os
from pathlib import Path

import pytest

from runtime.sinks.disk_cap import SPARE_LINES, DiskCap
from tests.support.small_disk import fill, small_disk


def _write(cap: DiskCap, group: str, name: str, size: int = 100) -> Path:
    path = cap.folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    cap.add(group, path)
    return path


def _names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.name.startswith("."))


def test_the_oldest_groups_go_first_as_wholes(tmp_path: Path):
    cap = DiskCap(tmp_path, 450, "test")
    for group in "abc":
        _write(cap, group, f"{group}/one")
        _write(cap, group, f"{group}/two")
    assert _names(tmp_path) == ["b", "b/one", "b/two", "c", "c/one", "c/two"]


def test_what_the_sink_did_not_write_stays(tmp_path: Path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/mine").write_text("mine")
    (tmp_path / "older").write_text("mine")
    cap = DiskCap(tmp_path, 250, "test")
    _write(cap, "a", "a/one")
    replaced = _write(cap, "a", "a/two")
    replaced.write_text("a person's own notes")
    touched = _write(cap, "b", "b", 40)
    os.utime(touched, ns=(1, 1))  # of the same size, but not as it was written
    _write(cap, "c", "c", 200)
    _write(cap, "d", "d", 200)
    assert _names(tmp_path) == ["a", "a/mine", "a/two", "b", "d", "older"]


def test_a_restart_knows_what_was_written_before(tmp_path: Path):
    for group in "abc":
        _write(DiskCap(tmp_path, 1000, "test"), group, group)
    (tmp_path / "b").unlink()  # by a person
    with (tmp_path / ".cflow-edge-test.jsonl").open("a") as ledger:
        ledger.write('{"group": "x", "path": "/etc/passwd", "bytes": 1, "mtime_ns": null}\n')
        ledger.write('{"group": "x", "path": "../outside", "bytes": 1, "mtime_ns": null}\n')
        ledger.write('[1]\n{"group": "half a li')
    cap = DiskCap(tmp_path, 250, "test")
    _write(cap, "d", "d")
    assert _names(tmp_path) == ["c", "d"]
    assert Path("/etc/passwd").exists()


def test_a_group_that_is_being_written_stays(tmp_path: Path):
    cap = DiskCap(tmp_path, 250, "test")
    cap.held.add("a")
    for group in "abc":
        _write(cap, group, group)
    assert _names(tmp_path) == ["a", "c"]
    cap.held.clear()
    _write(cap, "d", "d")
    assert _names(tmp_path) == ["c", "d"]


def test_what_is_larger_than_the_cap_is_an_error_and_does_not_stay(tmp_path: Path):
    cap = DiskCap(tmp_path, 250, "test")
    _write(cap, "a", "a")
    with pytest.raises(OSError, match="too small") as error:
        _write(cap, "b", "b", 300)
    assert error.value.errno == errno.EDQUOT and _names(tmp_path) == []
    for name in ("c", "d"):  # all of the cap is free again
        _write(cap, name, name)
    assert _names(tmp_path) == ["c", "d"]


def test_a_file_written_again_counts_once_and_as_new(tmp_path: Path):
    cap = DiskCap(tmp_path, 250, "test")
    for name in ("a", "b", "a"):
        _write(cap, name, name)
    assert _names(tmp_path) == ["a", "b"]
    _write(cap, "c", "c")
    assert _names(tmp_path) == ["a", "c"]


def test_a_growing_file_is_found_again_after_a_power_cut(tmp_path: Path):
    cap = DiskCap(tmp_path, 1000, "test")
    growing = tmp_path / "growing"
    growing.write_bytes(b"")
    cap.add("a", growing, growing=True)
    growing.write_bytes(b"x" * 700)
    again = DiskCap(tmp_path, 1000, "test")
    _write(again, "b", "b", 400)
    assert _names(tmp_path) == ["b"]


def test_a_growing_file_with_its_end_counts_with_its_size(tmp_path: Path):
    cap = DiskCap(tmp_path, 15, "test")
    growing = tmp_path / ".growing"
    growing.write_bytes(b"x" * 10)
    cap.add("a", growing, growing=True)
    growing.rename(tmp_path / "whole")
    cap.drop("a", growing)
    cap.add("a", tmp_path / "whole")
    _write(cap, "b", "b", 5)
    assert _names(tmp_path) == ["b", "whole"]
    _write(DiskCap(tmp_path, 15, "test"), "c", "c", 1)
    assert _names(tmp_path) == ["b", "c"]


def test_a_full_disk_takes_nothing_that_was_entered_before(tmp_path: Path):
    with small_disk(tmp_path / "disk") as disk:
        cap = DiskCap(disk, 10**6, "test")
        known = _write(cap, "a", "a")
        expected = disk / "expected"
        cap.expect("b", expected)
        expected.write_bytes(b"x" * 100)
        filler = fill(disk, cap._ledger)
        for group, path in (("a", known), ("b", expected)):
            with pytest.raises(OSError, match="No space left"):
                cap.add(group, path)
            assert path.read_bytes() == b"x" * 100
        filler.unlink()
        again = DiskCap(disk, 350, "test")
        _write(again, "c", "c", 250)
        assert _names(disk) == ["c", "expected"]


def test_a_part_of_a_ledgers_line_does_not_spoil_the_next(tmp_path: Path):
    _write(DiskCap(tmp_path, 250, "test"), "a", "a")
    with (tmp_path / ".cflow-edge-test.jsonl").open("a") as ledger:
        ledger.write('{"group": "half a li')
    _write(DiskCap(tmp_path, 250, "test"), "b", "b")
    _write(DiskCap(tmp_path, 250, "test"), "c", "c")
    assert _names(tmp_path) == ["b", "c"]
    _write(DiskCap(tmp_path, 250, "test"), "d", "d")
    assert _names(tmp_path) == ["c", "d"]


@pytest.mark.parametrize("growing", [False, True])
def test_a_file_entered_before_stays_though_it_outgrows_the_cap(tmp_path: Path, growing: bool):
    cap = DiskCap(tmp_path, 250, "test")
    path = tmp_path / "a"
    cap.expect("a", path)
    path.write_bytes(b"x" * 300)
    with pytest.raises(OSError, match="too small"):
        cap.add("a", path, growing)
    assert _names(tmp_path) == ["a"]
    _write(cap, "b", "b")  # and is the first to go
    assert _names(tmp_path) == ["b"]


def test_a_ledger_that_was_removed_is_written_anew(tmp_path: Path):
    cap = DiskCap(tmp_path, 250, "test")
    _write(cap, "a", "a")
    (tmp_path / ".cflow-edge-test.jsonl").unlink()
    _write(cap, "b", "b")
    _write(DiskCap(tmp_path, 250, "test"), "c", "c")
    assert _names(tmp_path) == ["b", "c"]


def test_the_ledger_does_not_grow_for_ever(tmp_path: Path):
    cap = DiskCap(tmp_path, 250, "test")
    for i in range(SPARE_LINES + 200):
        _write(cap, f"{i}", f"{i}")
    lines = (tmp_path / ".cflow-edge-test.jsonl").read_text().splitlines()
    assert len(lines) < SPARE_LINES and len(_names(tmp_path)) == 2
    _write(DiskCap(tmp_path, 250, "test"), "last", "last", 150)
    assert len(_names(tmp_path)) == 2
