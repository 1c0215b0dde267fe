"""Files of processes that were killed, and writers that meet."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from runtime.common.errors import UserError
from runtime.common.files import read_json, sweep, whole_file, write_json
from runtime.common.locks import one_writer
from tests.support.paths import ROOT

PATIENCE_S = 30
WRITER = """
import sys, time
from pathlib import Path
from runtime.common.files import whole_file
with whole_file(sys.argv[1]) as temporary:
    temporary.write_text("half")
    print("writing", flush=True)
    time.sleep(60)
"""
LOCKER = """
import sys, time
from pathlib import Path
from runtime.common.locks import one_writer
with one_writer(Path(sys.argv[1]), "it", "wait"):
    print("locked", flush=True)
    time.sleep(60)
"""


def started(program: str, path: Path) -> "subprocess.Popen[str]":
    """Return the running program once it has said that it is there."""
    run = subprocess.Popen([sys.executable, "-c", program, str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None and run.stdout.readline()
    return run


def kill(run: "subprocess.Popen[str]") -> None:
    run.send_signal(signal.SIGKILL)
    run.communicate(timeout=PATIENCE_S)


def test_what_a_killed_writer_leaves_is_swept_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    (tmp_path / "cable.json").write_text("old")
    (tmp_path / ".hidden.json").write_text("mine")
    run = started(WRITER, tmp_path / "cable.json")
    try:
        assert len(list(tmp_path.iterdir())) == 3
        assert sweep(tmp_path) == []
    finally:
        kill(run)
    assert [path.name.startswith(".cable.json.part-") for path in sweep(tmp_path)] == [True]
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"cable.json": "old", ".hidden.json": "mine"}
    assert sweep(tmp_path / "none") == []


def test_folders_within_are_swept_where_they_are_said_to_be_ours(tmp_path: Path) -> None:
    deep = tmp_path / "events" / "frames"
    deep.mkdir(parents=True)
    others = tmp_path / "elsewhere"
    others.mkdir()
    (tmp_path / "events" / "link").symlink_to(others)
    for folder in (deep, others):
        (folder / ".1.png.part-abcd0123.png").touch()
    assert sweep(tmp_path / "events") == []
    assert sweep(tmp_path / "events", below=True) == [deep / ".1.png.part-abcd0123.png"]
    assert len(list(others.iterdir())) == 1


def test_sweeping_beside_writers_takes_nothing_from_them(tmp_path: Path) -> None:
    ended = threading.Event()

    def keep_sweeping() -> None:
        while not ended.is_set():
            sweep(tmp_path)

    sweeper = threading.Thread(target=keep_sweeping)
    sweeper.start()
    try:
        for index in range(300):
            with whole_file(tmp_path / f"{index % 3}.txt") as temporary:
                temporary.write_text(str(index))
    finally:
        ended.set()
        sweeper.join(PATIENCE_S)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "0.txt": "297",
        "1.txt": "298",
        "2.txt": "299",
    }


def test_a_lock_refuses_a_second_writer_and_ends_with_its_process(tmp_path: Path) -> None:
    path = tmp_path / "out"
    run = started(LOCKER, path)
    try:
        message = f"out must have one writer at a time; found process {run.pid} writing it; no"
        with pytest.raises(UserError, match=message), one_writer(path, "out", "no"):
            pass
    finally:
        kill(run)
    assert (tmp_path / ".out.lock").exists()  # kill -9 leaves the file, but not the lock
    with one_writer(path, "out", "no"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_who_waits_comes_next_and_never_two_at_once(tmp_path: Path) -> None:
    inside, most, entered = [0], [0], [0]

    def work() -> None:
        for _ in range(20):
            with one_writer(tmp_path / "x", "x", "wait", PATIENCE_S):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                time.sleep(0.001)
                inside[0] -= 1
                entered[0] += 1

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert (most[0], entered[0]) == (1, 60)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("data", [b"\xff\xfe", b"{", b"[" * 10**6, b'{"a": 1, "a": 2}', b"1" * 5000, b"x" * 2000])
def test_json_that_is_none_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.json").write_bytes(data)
    with pytest.raises(UserError, match=r"x\.json must be JSON.*mend it"):
        read_json(tmp_path / "x.json", 1000 if data[:1] == b"x" else 10**7, "mend it")


def test_json_comes_back(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"a": [1, "ü"]})
    assert read_json(tmp_path / "x.json", 1000, "") == {"a": [1, "ü"]}


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_what_is_no_regular_file_is_refused_unread(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    with pytest.raises(UserError, match="must be a JSON file; found"):
        read_json(path, 100, "mend it")
