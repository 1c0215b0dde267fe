"""A picture that ends its decoder's process is a row and no end of the others; a killed process loses nothing."""

import os
import signal
import threading
from pathlib import Path

import pytest

from runtime.archive.items import Part
from runtime.archive.keeper import DEATHS_IN_A_ROW, Keeper, Stopped
from runtime.archive.listing import list_archive
from runtime.archive.run import judge_shard
from runtime.archive.setup import Identity
from runtime.common.errors import UserError
from tests.support.archives import rows_of, run_of, setup_of, write_pictures
from tests.support.waiting import wait_until

# what Python runs before anything else: these names end their process when their bytes are looked at
POISON = """
import os
from runtime.archive import judging

read = judging.read_image

def reading(name, *rest):
    if {condition}:
        os.kill(os.getpid(), 9)
    return read(name, *rest)

judging.read_image = reading
"""


def _poisoned(folder: Path, monkeypatch: pytest.MonkeyPatch, condition: str) -> None:
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(POISON.format(condition=condition))
    # before the checkout, which the keeper puts in front
    monkeypatch.setattr("runtime.archive.keeper.ROOT", f"{folder}{os.pathsep}{Path(__file__).parents[3]}")


def test_pictures_that_end_their_process_are_rows(
    engine: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    undisturbed = rows_of(judge_shard(run_of(folder, engine, tmp_path / "undisturbed")).file)
    _poisoned(tmp_path / "poison", monkeypatch, "name in ('001.png', '010.png', '011.png')")
    rows = rows_of(judge_shard(run_of(folder, engine, tmp_path / "scores", workers=1, part_size=50)).file)
    ended = {name for name, row in rows.items() if "the process that judged it ended" in row["error"]}
    assert ended == {"001.png", "010.png", "011.png"} and all(rows[name]["verdict"] == "none" for name in ended)
    assert {name: row for name, row in rows.items() if name not in ended} == {
        name: row for name, row in undisturbed.items() if name not in ended
    }


def test_where_every_picture_ends_its_process_it_is_not_the_pictures(
    engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    _poisoned(tmp_path / "poison", monkeypatch, "True")
    folder = write_pictures(tmp_path / "archive", 30)
    with pytest.raises(UserError, match=rf"must not end its process; found .* status -9, {DEATHS_IN_A_ROW} times"):
        judge_shard(run_of(folder, engine, tmp_path / "scores"))


def test_a_process_that_is_killed_under_way_loses_nothing(engine: Path, folder: Path):
    items = list_archive(str(folder))
    with Keeper(setup_of(folder, engine)) as keeper:
        expected = keeper.judge(Part(tuple(items)))
        assert keeper._child is not None
        os.kill(keeper._child._process.pid, signal.SIGKILL)  # while it waits
        wait_until(lambda: keeper._child.ended)
        assert keeper.judge(Part(tuple(items))) == expected
        done = threading.Event()

        def kill() -> None:
            while not done.wait(0.3):
                child = keeper._child
                if child is not None and child.opened:
                    os.kill(child._process.pid, signal.SIGKILL)
                    return

        killer = threading.Thread(target=kill)
        killer.start()
        rows = [keeper.judge(Part(tuple(items))) for _ in range(60)]
        done.set()
        killer.join()
    assert all(row == expected for row in rows)


def test_an_engine_that_cannot_be_opened_is_one_line(engine: Path, folder: Path, tmp_path: Path):
    broken = tmp_path / "tiny.onnx"
    broken.write_bytes(engine.read_bytes() + b"more")
    broken.with_suffix(".json").write_bytes(engine.with_suffix(".json").read_bytes())
    for path, told in ((broken, "tiny.onnx"), (tmp_path / "none.onnx", "must exist")):
        with pytest.raises(UserError, match=told):
            judge_shard(run_of(folder, path, tmp_path / "scores"))
    assert not (tmp_path / "scores").exists()


def test_every_worker_must_judge_alike(engine: Path, folder: Path):
    with Keeper(setup_of(folder, engine)) as keeper:
        known = keeper.identity()
    other = Identity.from_facts({**known.facts, "device": "ONNX Runtime 1.0 CPU, 1 thread"})
    with (
        Keeper(setup_of(folder, engine, expected=other)) as keeper,
        pytest.raises(UserError, match=r"every worker must judge alike: the library ONNX Runtime 1\.0 CPU, 1 thread"),
    ):
        keeper.judge(Part(()))


def test_who_waits_for_a_keeper_that_is_closed_is_let_go(engine: Path, folder: Path):
    keeper = Keeper(setup_of(folder, engine))
    keeper.close()
    with pytest.raises(Stopped):
        keeper.judge(Part(()))
