import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from runtime.common.errors import UserError
from runtime.sources.frame import Frame
from runtime.sources.naming import live_frame_name
from runtime.sources.watch import WatchedFolder, WatchOptions
from tests.support.waiting import wait_until


class Watching:
    """A watched folder with a thread that takes every frame."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.said: list[str] = []
        defaults = {"poll_s": 0.01, "settle_s": 0.05, "say": self.said.append}
        self.source = WatchedFolder(folder, WatchOptions(**{**defaults, **options}))
        self.frames: list[Frame] = []
        self._thread = threading.Thread(target=lambda: self.frames.extend(self.source))
        self._thread.start()

    @property
    def names(self) -> list[str]:
        return [frame.name for frame in self.frames]

    def wait_for(self, count: int) -> None:
        wait_until(lambda: len(self.frames) >= count, f"{count} frames, not {self.names}")

    def close(self) -> None:
        self.source.close()
        self._thread.join(120)
        assert not self._thread.is_alive()


def _write(path: Path, level: int = 10) -> Path:
    Image.fromarray(np.full((6, 8, 3), level, np.uint8)).save(path)
    return path


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    folder = tmp_path / "inbox"
    folder.mkdir()
    return folder


@pytest.fixture
def watching(inbox: Path) -> Iterator[Watching]:
    watched = Watching(inbox)
    yield watched
    watched.close()


def _a_few_looks_more(watched: Watching, inbox: Path) -> None:
    """Wait until one more file was judged: everything older was looked at often enough by then."""
    count = len(watched.frames)
    _write(inbox / f"later{count}.png", count)
    watched.wait_for(count + 1)


def test_images_are_judged_as_they_arrive_each_once(inbox: Path):
    for i in range(12):
        os.utime(_write(inbox / f"{i}.png", i), (1000, 1000))  # all of one time, as after copying: in natural order
    watched = Watching(inbox)
    watched.wait_for(12)
    assert watched.names == [f"{i}.png" for i in range(12)]
    assert [int(frame.image[0, 0, 0]) for frame in watched.frames] == list(range(12))
    (inbox / "notes.txt").write_text("no image")
    (inbox / "folder.png").mkdir()
    _write(inbox / ".hidden.png")
    _a_few_looks_more(watched, inbox)
    watched.close()
    assert [frame.index for frame in watched.frames] == list(range(13))
    assert not watched.source.live and watched.source.state == "ended"
    assert (watched.source.dropped, watched.source.unreadable, watched.said) == (0, 0, [])


def test_what_is_there_already_can_be_skipped(inbox: Path):
    _write(inbox / "old.png")
    watched = Watching(inbox, existing=False)
    _a_few_looks_more(watched, inbox)
    assert watched.names == ["later0.png"]
    _write(inbox / "old.png", 99)  # is new now
    watched.wait_for(2)
    watched.close()
    assert watched.names[1] == "old.png"


def test_a_file_that_is_still_being_written_waits(inbox: Path):
    watching = Watching(inbox, settle_s=0.6)
    whole = _write(inbox.parent / "whole.bmp").read_bytes()  # of which Pillow would take a part without its end
    with (inbox / "slow.bmp").open("wb") as file:
        for start in range(0, len(whole), 20):
            file.write(whole[start : start + 20])
            file.flush()
            threading.Event().wait(0.02)
            assert "slow.bmp" not in watching.names
    watching.wait_for(1)
    watching.close()
    assert (watching.frames[0].image == 10).all() and watching.source.unreadable == 0


def test_a_writer_that_pauses_is_read_when_it_is_done(inbox: Path, watching: Watching):
    whole = _write(inbox.parent / "whole.png").read_bytes()
    (inbox / "half.png").write_bytes(whole[: len(whole) // 2])
    wait_until(lambda: watching.source.unreadable == 1)
    assert len(watching.said) == 1 and "half.png must be a whole image" in watching.said[0]
    _a_few_looks_more(watching, inbox)
    assert watching.source.unreadable == 1  # tried once
    (inbox / "half.png").write_bytes(whole)
    watching.wait_for(3)
    assert watching.names == ["half.png", "later1.png", "half.png"]
    assert "half.png must be a whole image" in watching.frames[0].fault and not watching.frames[0].image.any()
    assert not watching.frames[2].fault and watching.frames[2].image.any()


def test_renamed_touched_and_copied_again_is_not_judged_twice(inbox: Path, watching: Watching):
    path = _write(inbox / "a.png", 30)
    watching.wait_for(1)
    os.utime(path, (5000, 5000))  # as a copying program does at its end
    _a_few_looks_more(watching, inbox)
    path.rename(inbox / "b.png")
    _a_few_looks_more(watching, inbox)
    data = (inbox / "b.png").read_bytes()
    (inbox / "b.png").write_bytes(data)
    _a_few_looks_more(watching, inbox)
    assert watching.names == ["a.png", "later1.png", "later2.png", "later3.png"]


def test_overwritten_and_returned_files_are_new(inbox: Path, watching: Watching):
    _write(inbox / "latest.png", 30)
    watching.wait_for(1)
    _write(inbox / "latest.png", 31)
    watching.wait_for(2)
    assert watching.names[0] == "latest.png"
    # a name of its own: or its overlay would take the place of the one that the first one's line points at
    assert watching.names[1] == live_frame_name("latest.png", 1)
    temporary = _write(inbox / ".next.bmp", 32)
    temporary.replace(inbox / "latest.bmp")
    watching.wait_for(3)
    (inbox / "latest.png").unlink()
    _a_few_looks_more(watching, inbox)
    _write(inbox / "latest.png", 31)
    watching.wait_for(5)
    assert watching.names[4] == "latest.png"


def test_memory_holds_what_is_in_the_folder_and_no_more(inbox: Path, watching: Watching):
    for i in range(30):
        path = _write(inbox / f"{i}.png", i)
        watching.wait_for(i + 1)
        path.unlink()
    _a_few_looks_more(watching, inbox)
    wait_until(lambda: set(watching.source._entries) == {"later30.png"})


def test_none_is_lost_among_many_that_arrive_at_once(inbox: Path, watching: Watching):
    def produce(producer: int) -> None:
        for i in range(50):
            temporary = inbox / f".{producer}_{i}.png"
            _write(temporary, i).rename(inbox / f"{producer}_{i}.png")

    producers = [threading.Thread(target=produce, args=(n,)) for n in range(3)]
    for producer in producers:
        producer.start()
    watching.wait_for(150)
    _a_few_looks_more(watching, inbox)
    assert sorted(watching.names[:150]) == sorted(f"{n}_{i}.png" for n in range(3) for i in range(50))


def test_a_file_that_goes_before_it_is_read_is_counted(inbox: Path):
    for i in range(3):
        os.utime(_write(inbox / f"{i}.png", i), (1000, 1000))
    with WatchedFolder(inbox, WatchOptions(poll_s=0.01, settle_s=0.05, say=lambda line: None)) as source:
        frames = iter(source)
        assert next(frames).name == "0.png"
        (inbox / "1.png").unlink()
        assert next(frames).name == "2.png"
        assert source.dropped == 1


def test_a_file_written_to_while_others_are_judged_is_read_whole(inbox: Path, tmp_path: Path):
    for i in range(2):
        os.utime(_write(inbox / f"{i}.png", i), (1000, 1000))
    with WatchedFolder(inbox, WatchOptions(poll_s=0.01, settle_s=1.0)) as source:
        frames = iter(source)
        assert next(frames).name == "0.png"
        whole = _write(tmp_path / "whole.png", 200).read_bytes()
        (inbox / "1.png").write_bytes(whole[:40])  # its writer is not done when its turn comes
        threading.Timer(0.1, (inbox / "1.png").write_bytes, [whole]).start()
        assert next(frames).image[0, 0, 0] == 200
        assert source.unreadable == 0


def test_a_folder_that_goes_and_comes_back_is_not_judged_again(inbox: Path, watching: Watching):
    _write(inbox / "a.png")
    watching.wait_for(1)
    away = inbox.with_name("away")
    inbox.rename(away)
    wait_until(lambda: watching.said)
    assert "is lost (No such file or directory)" in watching.said[0] and watching.source.state.startswith(
        "reconnecting"
    )
    away.rename(inbox)
    _a_few_looks_more(watching, inbox)
    assert watching.names == ["a.png", "later1.png"] and watching.source.reconnects == 1
    assert len(watching.said) == 2 and "is back after" in watching.said[1]


def test_a_mount_point_without_its_share_forgets_nothing(inbox: Path, watching: Watching):
    _write(inbox / "a.png")
    watching.wait_for(1)
    if not Path("/dev/shm").is_dir() or Path("/dev/shm").stat().st_dev == inbox.stat().st_dev:
        pytest.skip("needs a second file system at /dev/shm")
    elsewhere = Path("/dev/shm") / f"empty{os.getpid()}"
    elsewhere.mkdir()
    away = inbox.with_name("away")
    try:
        inbox.rename(away)
        inbox.symlink_to(elsewhere)
        threading.Event().wait(0.2)  # some looks at the empty folder
        assert set(watching.source._entries) == {"a.png"}
        inbox.unlink()
        away.rename(inbox)
        _a_few_looks_more(watching, inbox)
    finally:
        shutil.rmtree(elsewhere)
    assert watching.names == ["a.png", "later1.png"]


def test_what_the_system_does_not_let_read_is_tried_again(
    inbox: Path, watching: Watching, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("runtime.sources.watch.RETRY_S", 0.05)
    read = Path.read_bytes
    refused = {"locked.png"}
    attempts = []

    def read_unless_locked(path: Path) -> bytes:
        if path.name in refused:
            attempts.append(path)
            raise PermissionError(13, "Permission denied", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", read_unless_locked)
    _write(inbox / "locked.png", 77)
    wait_until(lambda: len(attempts) >= 4)
    _a_few_looks_more(watching, inbox)
    refused.clear()
    watching.wait_for(2)
    assert watching.names[1] == "locked.png"
    assert watching.source.unreadable == 1 and len(watching.said) == 1


def test_many_broken_files_are_a_few_lines(inbox: Path, watching: Watching):
    for i in range(150):
        (inbox / f"{i}.png").write_bytes(b"broken %d" % i)
    wait_until(lambda: watching.source.unreadable == 150)
    assert len(watching.said) == 3 and watching.said[2].endswith("(100 so far)")


def test_what_is_no_folder_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match="must be a folder"):
        WatchedFolder(tmp_path / "missing")
