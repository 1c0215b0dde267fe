"""The calibration set: what the manifest promises is checked, and a refill replaces all or nothing."""

import hashlib
import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from export.calibration_data import MANIFEST_NAME, _spaced, main, read_calibration_data
from runtime.common.errors import UserError, run_command
from runtime.common.files import sha256_of
from runtime.common.locks import one_writer
from runtime.images.opencv import opencv
from runtime.images.preprocess import read_image
from runtime.sources.frame import Frame
from tests.support.paths import ROOT
from tests.support.snapshot_server import SnapshotServer

SHIPPED = ROOT / "calibration_data"


def _write_images(folder: Path, count: int, seed: int = 0) -> Path:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for i in range(count):
        Image.fromarray(rng.integers(0, 256, (8, 10, 3), dtype=np.uint8)).save(folder / f"good{i}.png")
    return folder


def _write_video(path: Path, count: int) -> Path:
    """Write `count` flat frames whose grey level is 4 times their number, without loss."""
    cv2 = opencv()
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"FFV1"), 10, (32, 24))
    assert writer.isOpened()
    for i in range(count):
        writer.write(np.full((24, 32, 3), 4 * i, np.uint8))
    writer.release()
    return path


def _fill(source: Path, out: Path, count: int = 4) -> None:
    assert run_command(main, ["--from", str(source), "--count", str(count), "--out", str(out)]) == 0


def _edit_manifest(folder: Path, **changes: Any) -> None:
    manifest = json.loads((folder / MANIFEST_NAME).read_text())
    (folder / MANIFEST_NAME).write_text(json.dumps({**manifest, **changes}))


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    out = tmp_path / "set"
    _fill(_write_images(tmp_path / "source", 4), out)
    return out


def test_the_shipped_set_is_whole_and_readable() -> None:
    data = read_calibration_data(SHIPPED)
    assert len(data.paths) == 24 and "train.synthetic seed 1000" in data.origin
    assert all(read_image(path).shape == (256, 256, 3) for path in data.paths)


def test_the_hash_of_the_set_is_that_of_its_sorted_hashes(filled: Path) -> None:
    data = read_calibration_data(filled)
    digests = sorted(hashlib.sha256(path.read_bytes()).hexdigest() for path in filled.glob("*.png"))
    assert data.sha256 == hashlib.sha256("\n".join(digests).encode()).hexdigest()
    assert data.origin == "source" and {path.name for path in data.paths} == {f"good{i}.png" for i in range(4)}


def test_without_a_manifest_all_images_are_the_set(filled: Path, tmp_path: Path) -> None:
    data = read_calibration_data(tmp_path / "source")
    assert data.origin == "source" and data.sha256 == read_calibration_data(filled).sha256
    (tmp_path / "source" / "good0.png").rename(tmp_path / "source" / "zzz.png")
    assert read_calibration_data(tmp_path / "source").sha256 == data.sha256  # neither names nor order count


@pytest.mark.parametrize("folder", ["missing", "empty"])
def test_a_missing_or_empty_folder_is_refused(tmp_path: Path, folder: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="refill it"):
        read_calibration_data(tmp_path / folder)


def test_a_changed_missing_or_unlisted_image_is_named(filled: Path) -> None:
    path = filled / "good2.png"
    original = path.read_bytes()
    path.write_bytes(original + b"!")
    with pytest.raises(UserError, match=r"good2\.png must have sha256.*refill it"):
        read_calibration_data(filled)
    path.unlink()
    with pytest.raises(UserError, match=r"good2\.png must exist.*refill it"):
        read_calibration_data(filled)
    path.write_bytes(original)
    read_calibration_data(filled)
    (filled / "extra.jpg").write_bytes(original)
    with pytest.raises(UserError, match=r"must be listed.*extra\.jpg"):
        read_calibration_data(filled)


@pytest.mark.parametrize(
    "changes",
    [
        {"schema": "another/1"},
        {"images": None},
        {"images": [{"file": "good0.png"}]},
        {"images": ["good0.png"]},
        {"images": [{"file": "../good0.png", "sha256": "0"}]},
    ],
)
def test_a_broken_manifest_is_refused(filled: Path, changes: dict[str, Any]) -> None:
    _edit_manifest(filled, **changes)
    with pytest.raises(UserError, match=r"manifest\.json: (schema|images.*) must be"):
        read_calibration_data(filled)


@pytest.mark.parametrize("text", ["", "[]", "{", "\x00"])
def test_a_manifest_that_is_no_manifest_is_refused(filled: Path, text: str) -> None:
    (filled / MANIFEST_NAME).write_text(text)
    with pytest.raises(UserError, match=r"manifest\.json(: it)? must be"):
        read_calibration_data(filled)


def test_an_empty_manifest_is_refused(filled: Path) -> None:
    for path in filled.glob("*.png"):
        path.unlink()
    _edit_manifest(filled, images=[])
    with pytest.raises(UserError, match="must hold calibration images"):
        read_calibration_data(filled)


def test_a_folder_is_sampled_evenly_and_copied_byte_by_byte(tmp_path: Path) -> None:
    source = _write_images(tmp_path / "source", 9)
    _fill(source, tmp_path / "set", count=3)
    paths = read_calibration_data(tmp_path / "set").paths
    assert [path.name for path in paths] == ["good0.png", "good4.png", "good8.png"]
    assert all(path.read_bytes() == (source / path.name).read_bytes() for path in paths)


def test_a_video_is_sampled_evenly_from_first_to_last(tmp_path: Path) -> None:
    _fill(_write_video(tmp_path / "line.mkv", 21), tmp_path / "set", count=5)
    data = read_calibration_data(tmp_path / "set")
    assert data.origin == "line.mkv"
    # FFV1 keeps every bit, but OpenCV's way through YUV rounds: within 2 levels, and frames are 20 apart.
    greys = [float(read_image(path).mean()) for path in data.paths]
    np.testing.assert_allclose(greys, [0, 20, 40, 60, 80], atol=2)


def test_one_image_is_a_source_too_and_a_small_set_earns_a_note(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = _write_images(tmp_path / "source", 2)
    _fill(source / "good1.png", tmp_path / "set")
    assert [path.name for path in read_calibration_data(tmp_path / "set").paths] == ["good1.png"]
    assert "fewer than 32" in capsys.readouterr().err


def test_camera_frames_are_spaced_in_time() -> None:
    image = np.zeros((2, 2, 3), np.uint8)
    monotonic_s = [100.0, 100.4, 101.1, 101.2, 102.3]
    frames = [Frame(image, f"f{i}", i, 5e8 - 1e4 * i, "", at) for i, at in enumerate(monotonic_s)]  # set back each time
    assert [frame.index for frame in _spaced(frames, 1.0)] == [0, 2, 4]
    assert [frame.index for frame in _spaced(frames, 0.0)] == [0, 1, 2, 3, 4]


def test_a_streams_frames_are_taken_and_the_command_ends(tmp_path: Path) -> None:
    server = SnapshotServer("basic", "admin", "secret")
    try:
        words = ["--from", f"http://admin:secret@127.0.0.1:{server.port}/snap", "--count", "2", "--every", "0"]
        assert run_command(main, [*words, "--out", str(tmp_path / "set")]) == 0
    finally:
        server.close()
    data = read_calibration_data(tmp_path / "set")
    assert len(data.paths) == 2 and data.origin == f"http://admin@127.0.0.1:{server.port}/snap"


def test_a_pipe_in_a_folder_is_not_read(tmp_path: Path) -> None:
    source = _write_images(tmp_path / "source", 2)
    os.mkfifo(source / "good9.png")
    _fill(source, tmp_path / "set")
    assert len(read_calibration_data(tmp_path / "set").paths) == 2


def test_a_refill_replaces_the_earlier_set_and_keeps_other_files(filled: Path, tmp_path: Path) -> None:
    (filled / "README.md").write_text("mine")
    before = read_calibration_data(filled).sha256
    _fill(_write_images(tmp_path / "other", 2, seed=1), filled)
    data = read_calibration_data(filled)
    assert len(data.paths) == 2 and data.sha256 != before
    names = sorted(path.name for path in filled.iterdir())
    assert (len(names), names[0], names[-1]) == (4, "README.md", MANIFEST_NAME)
    # other images than the earlier set's good0 and good1 have other names: at every moment one of the sets was whole
    assert all(f"good{i}-{sha256_of(filled / name)[:12]}.png" == name for i, name in enumerate(names[1:3]))
    _fill(_write_images(tmp_path / "third", 2, seed=2), filled)
    assert sorted(path.name for path in filled.glob("*.png")) == ["good0.png", "good1.png"]


def test_a_refill_that_fails_leaves_the_earlier_set_whole(filled: Path, tmp_path: Path) -> None:
    before = read_calibration_data(filled)
    source = _write_images(tmp_path / "other", 3, seed=1)
    (source / "good1.png").write_bytes(b"no image")
    assert run_command(main, ["--from", str(source), "--out", str(filled)]) == 2
    assert read_calibration_data(filled) == before
    assert len(list(filled.iterdir())) == 5  # four images and the manifest: nothing half-done is left


def test_a_refill_never_removes_what_it_did_not_write(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = _write_images(tmp_path / "own", 2)
    source = _write_images(tmp_path / "source", 2, seed=1)
    assert run_command(main, ["--from", str(source), "--out", str(own)]) == 2
    assert run_command(main, ["--from", str(own), "--out", str(own)]) == 2
    assert len(list(own.iterdir())) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 2 and "choose another --out" in error and "two folders" in error


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--from", "nowhere"], "no such file"),
        (["--from", ".", "--count", "0"], "count must be 1 or more"),
        (["--from", ".", "--every", "nan"], "every must be"),
        (["--from", "watch:."], "a folder to watch; give the folder itself"),
        (["--from", "pipe.png"], "no regular file"),
    ],
)
def test_bad_arguments_end_in_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    expected: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe.png")
    assert run_command(main, arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and expected in error
    assert not (tmp_path / "calibration_data").exists()


PROGRAM = """
import os, sys
from pathlib import Path
from export.calibration_data import main
calls = [0]
def counted(real):
    def call(*arguments, **options):
        calls[0] += 1
        if calls[0] == int(sys.argv[1]):
            os._exit(9)
        return real(*arguments, **options)
    return call
Path.replace, Path.unlink = counted(Path.replace), counted(Path.unlink)
main(sys.argv[2:])
"""


def test_killed_at_any_step_the_folder_is_one_of_the_sets_and_can_be_filled_again(filled: Path, tmp_path: Path) -> None:
    before = read_calibration_data(filled)
    other = _write_images(tmp_path / "other", 3, seed=1)
    after = read_calibration_data(other).sha256
    seen, steps = [], 0
    for step in itertools.count(1):
        folder = tmp_path / f"set{step}"
        shutil.copytree(filled, folder)
        arguments = ["--from", str(other), "--out", str(folder)]
        status = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(step), *arguments], cwd=ROOT, check=False
        ).returncode
        found = read_calibration_data(folder).sha256
        assert found in (before.sha256, after)
        seen.append(found)
        if status == 0:
            steps = step
            break
        assert status == 9
        _fill(other, folder)
        assert read_calibration_data(folder).sha256 == after
        assert len(list(folder.iterdir())) == 4  # three images and the manifest: what the killed one left is gone
        shutil.rmtree(folder)
    assert steps > 10 and seen == sorted(seen, key=lambda found: found == after)  # the earlier set, then the new one


def test_a_folder_has_one_that_fills_it(filled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = read_calibration_data(filled)
    with one_writer(filled, "it", "wait"):
        assert run_command(main, ["--from", str(tmp_path / "source"), "--out", str(filled)]) == 2
    assert "must have one writer at a time" in capsys.readouterr().err
    assert read_calibration_data(filled) == before


def test_names_that_are_no_utf_8_make_a_set_that_can_be_read(tmp_path: Path) -> None:
    source = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    source.mkdir()
    for number in range(4):
        Image.new("RGB", (32, 32), (40 * number, 90, 90)).save(tmp_path / "one.png")
        (tmp_path / "one.png").rename(source / os.fsdecode(b"\xe9%d.png" % number))
    arguments = ["--from", str(source), "--out", str(tmp_path / "set")]
    assert run_command(main, arguments) == 0
    assert len(read_calibration_data(tmp_path / "set").paths) == 4
    assert run_command(main, arguments) == 0  # in the place of itself
