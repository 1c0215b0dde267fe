"""Parts of an upload: packed, checked and put together, by the very file that travels with them."""

import hashlib
import io
import json
import lzma
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

from export.carry import CarryError, pack, unpack

MIB = 1 << 20


@pytest.fixture
def sources(tmp_path: Path) -> list[Path]:
    """Return a folder with a program, a link and random bytes, which no packer makes smaller, and a single file."""
    folder = tmp_path / "environment"
    (folder / "bin").mkdir(parents=True)
    program = folder / "bin/run"
    program.write_text("#!/bin/sh\necho hello\n")
    program.chmod(0o755)
    (folder / "bin/link").symlink_to("run")
    (folder / "weights").write_bytes(np.random.default_rng(0).bytes(5 * MIB // 2))
    (tmp_path / "note.txt").write_text("a note")
    return [folder, tmp_path / "note.txt"]


def test_what_was_packed_is_what_comes_out(sources: list[Path], tmp_path: Path) -> None:
    parts = pack(sources, tmp_path / "parts", 1)
    assert [path.name for path in parts] == ["part-000", "part-001", "part-002"]
    assert [path.stat().st_size for path in parts[:2]] == [MIB, MIB] and 0 < parts[2].stat().st_size < MIB
    command = [sys.executable, "-I", str(tmp_path / "parts/carry.py"), "unpack", str(tmp_path / "parts")]
    there = tmp_path / "there"
    ended = subprocess.run([*command, "--into", str(there)], capture_output=True, text=True, timeout=60)
    assert ended.stdout == f"{there}: environment, note.txt\n" and ended.stderr == ""
    assert subprocess.run([there / "environment/bin/link"], capture_output=True, timeout=60).stdout == b"hello\n"
    assert (there / "environment/weights").read_bytes() == (sources[0] / "weights").read_bytes()
    assert (there / "note.txt").read_text() == "a note"
    again = subprocess.run([*command, "--into", str(there)], capture_output=True, text=True, timeout=60)
    assert again.returncode == 2 and again.stderr.count("\n") == 1 and "must not exist yet" in again.stderr


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda folder: (folder / "part-001").unlink(), "must hold 3 parts; found no part-001"),
        (lambda folder: (folder / "parts.json").unlink(), "must hold parts and their parts.json"),
        (lambda folder: (folder / "parts.json").write_text("{"), "must hold parts and their parts.json"),
        (lambda folder: os.truncate(folder / "part-002", 100), "part-002 must be as it was packed"),
    ],
)
def test_nothing_is_unpacked_of_parts_that_are_not_whole(spoil, expected, sources: list[Path], tmp_path: Path) -> None:
    pack(sources, tmp_path / "parts", 1)
    spoil(tmp_path / "parts")
    with pytest.raises(CarryError, match=expected):
        unpack(tmp_path / "parts", tmp_path / "there")
    assert not list(tmp_path.glob("there*"))


def test_what_cannot_be_packed_is_told_and_leaves_nothing(sources: list[Path], tmp_path: Path) -> None:
    for wrong, expected in (
        ([*sources, tmp_path / "missing"], "found no .*missing"),
        ([*sources, tmp_path / "environment/../note.txt"], "no two of the same name"),
    ):
        with pytest.raises(CarryError, match=expected):
            pack(wrong, tmp_path / "parts", 1)
    with pytest.raises(CarryError, match="1 MiB or more; found 0"):
        pack(sources, tmp_path / "parts", 0)
    assert not (tmp_path / "parts").exists()
    (tmp_path / "parts").mkdir()
    with pytest.raises(CarryError, match="must not exist yet"):
        pack(sources, tmp_path / "parts", 1)


@pytest.mark.skipif(not hasattr(tarfile, "data_filter"), reason="this Python's tarfile has no filters")
def test_a_part_cannot_write_outside(tmp_path: Path) -> None:
    parts = tmp_path / "parts"
    parts.mkdir()
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        member = tarfile.TarInfo("../outside.txt")
        member.size = 4
        tar.addfile(member, io.BytesIO(b"evil"))
    packed = lzma.compress(data.getvalue())
    (parts / "part-000").write_bytes(packed)
    (parts / "parts.json").write_text(json.dumps({"part-000": hashlib.sha256(packed).hexdigest()}))
    with pytest.raises(CarryError, match=r"outside\.txt.* outside the destination"):
        unpack(parts, tmp_path / "there")
    assert not (tmp_path / "outside.txt").exists() and not list(tmp_path.glob("there*"))
