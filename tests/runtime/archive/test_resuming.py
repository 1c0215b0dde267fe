"""Whole or absent, and never twice: runs that are killed, that go on, that find another engine's work."""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from runtime.archive import keeper
from runtime.archive.items import Shard
from runtime.archive.merge import merge
from runtime.archive.run import judge_shard
from runtime.archive.shelf import Shelf
from runtime.archive.table import heading_of
from runtime.common.errors import UserError, run_command
from runtime.common.locks import one_writer
from runtime.images.view import ViewOptions
from runtime.judge import main
from tests.support.archives import picture, rows_of, run_of, setup_of, write_pictures
from tests.support.paths import ROOT
from tests.support.small_disk import small_disk
from tests.support.tiny_engine import write_tiny_engine
from tests.support.waiting import wait_until

WHOLE = "000001-of-000001.parquet"


@pytest.fixture(scope="module")
def expected(engine: Path, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of the shard, judged without a disturbance."""
    return judge_shard(run_of(folder, engine, tmp_path_factory.mktemp("whole"))).file.read_bytes()


def _files(out: Path) -> list[str]:
    return sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())


def _tables(out: Path) -> list[Path]:
    return [path for path in out.rglob("*.parquet") if not path.name.startswith(".")]


@pytest.mark.parametrize("part_size", [1, 3, 4, 100])
@pytest.mark.parametrize("workers", [1, 3])
def test_the_file_is_the_same_however_it_was_judged(
    engine: Path, folder: Path, tmp_path: Path, expected: bytes, workers: int, part_size: int
):
    outcome = judge_shard(run_of(folder, engine, tmp_path, workers=workers, part_size=part_size))
    assert outcome.file.read_bytes() == expected
    assert _files(tmp_path) == [WHOLE] and not (tmp_path / "parts").exists()


def test_what_is_judged_is_not_judged_again(
    engine: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected: bytes
):
    judge_shard(run_of(folder, engine, tmp_path))
    before = (tmp_path / WHOLE).stat().st_mtime_ns
    monkeypatch.setattr(keeper.Keeper, "judge", None)  # whoever asks it fails
    assert judge_shard(run_of(folder, engine, tmp_path)).new == 0
    assert (tmp_path / WHOLE).stat().st_mtime_ns == before


def _interrupted_after(parts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the process end, as far as its files go, when so many parts are there."""
    put, done = Shelf.put, [0]

    def counted(self: Shelf, *args: object) -> None:
        if done[0] == parts:
            raise KeyboardInterrupt
        done[0] += 1
        put(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(Shelf, "put", counted)


@pytest.mark.parametrize("parts", [0, 1, 4])
def test_an_interrupted_run_goes_on_and_images_that_came_meanwhile_are_judged(
    engine: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected: bytes, parts: int
):
    with monkeypatch.context() as patch:
        _interrupted_after(parts, patch)
        with pytest.raises(KeyboardInterrupt):
            judge_shard(run_of(folder, engine, tmp_path))
    assert len(list(tmp_path.glob("parts/*/*.parquet"))) == parts and not (tmp_path / WHOLE).exists()
    with pytest.raises(UserError, match="no shard that is finished"):
        merge(tmp_path, tmp_path / "all.parquet")
    outcome = judge_shard(run_of(folder, engine, tmp_path))
    assert outcome.file.read_bytes() == expected and outcome.new == 22 - 4 * parts
    grown = tmp_path / "grown"
    shutil.copytree(folder, grown)
    run = run_of(grown, engine, tmp_path / "of grown")
    judge_shard(run)
    Image.fromarray(picture(77)).save(grown / "0000 first.png")
    assert judge_shard(run).new == 1
    assert set(rows_of(tmp_path / "of grown" / WHOLE)) == {*rows_of(tmp_path / WHOLE), "0000 first.png"}
    judge_shard(run_of(grown, engine, tmp_path / "at once"))
    assert (tmp_path / "at once" / WHOLE).read_bytes() == (tmp_path / "of grown" / WHOLE).read_bytes()


@pytest.mark.parametrize("when", ["whole, parts there", "whole, one part there"])
def test_a_run_that_ended_while_it_tidied_up(
    engine: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected: bytes, when: str
):
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda path: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            judge_shard(run_of(folder, engine, tmp_path))
    left = sorted(tmp_path.glob("parts/*/*.parquet"))
    assert len(left) == 6 and (tmp_path / WHOLE).is_file()
    if when == "whole, one part there":
        for path in left[1:]:
            path.unlink()
    with pytest.raises(UserError, match=r"must hold all 1 shards, finished; found not 1/1; judge those first"):
        merge(tmp_path, tmp_path / "all.parquet")
    outcome = judge_shard(run_of(folder, engine, tmp_path))
    assert outcome.new == 0 and outcome.file.read_bytes() == expected and _files(tmp_path) == [WHOLE]


def _command(folder: Path, engine: Path, out: Path, *more: str) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "runtime.judge", str(folder), "--engine", str(engine), "--out", str(out)]
    words += ["--workers", "2", "--part-size", "3", "--backend", "onnxruntime", *more]
    return subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _children(pid: int) -> list[int]:
    try:
        words = [task.read_text().split() for task in Path(f"/proc/{pid}/task").glob("*/children")]
    except OSError:  # a thread that has ended
        return []
    return [int(word) for found in words for word in found]


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_kill_9_at_any_moment_and_the_file_is_the_same(
    engine: Path, folder: Path, tmp_path: Path, expected: bytes, seed: int
):
    """Of the command itself or of a process that judges; no process stays behind."""
    rng = random.Random(seed)
    out, seen = tmp_path / "scores", set()
    for _ in range(6):
        with _command(folder, engine, out) as command:
            deadline = time.monotonic() + rng.uniform(0.1, 2.5)
            while time.monotonic() < deadline and command.poll() is None:
                time.sleep(0.01)
            children = _children(command.pid)
            seen.update(children)
            if children and rng.random() < 0.5:
                try:
                    os.kill(rng.choice(children), signal.SIGKILL)
                except ProcessLookupError:
                    continue
                _, errors = command.communicate(timeout=120)
                assert command.returncode == 0, errors
            elif command.poll() is None:
                command.kill()
            command.wait(120)
        for file in _tables(out):  # what is there is whole
            assert heading_of(file).rows == pq.read_table(file).num_rows
    with _command(folder, engine, out) as command:
        _, errors = command.communicate(timeout=120)
        assert command.returncode == 0, errors
    assert (out / WHOLE).read_bytes() == expected
    assert _files(out) == [WHOLE]
    wait_until(lambda: not any(map(_alive, seen)), "a process of a killed command stays")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_in_one_line_and_keeps_what_is_judged(engine: Path, tmp_path: Path, number: signal.Signals):
    folder = write_pictures(tmp_path / "many", 400)
    out = tmp_path / "scores"
    with _command(folder, engine, out) as command:
        wait_until(lambda: _tables(out) or command.poll() is not None)
        command.send_signal(number)
        _, errors = command.communicate(timeout=120)
    if command.returncode != 0:  # it may have been at its end
        assert command.returncode == 128 + number
        assert (
            errors.strip().splitlines()[-1].endswith("what was written before is whole") and "Traceback" not in errors
        )
    kept = sum(heading_of(file).rows for file in _tables(out))
    assert kept >= 3
    assert judge_shard(run_of(folder, engine, out)).new == 400 - kept


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("engine", r"the engine [0-9a-f]{12}; found [0-9a-f]{12}"),
        ("sidecar", r"the sidecar [0-9a-f]{12}; found [0-9a-f]{12}"),
        ("threshold", r"the threshold 0\.5; found 1\.0"),
        ("view", r"region, mask, rotation and flip .*; found .*"),
        ("mask", r"region, mask, rotation and flip .*; found .*"),
        ("backend", r"the library OpenVINO .*; found ONNX Runtime .*"),
        ("archive", r"the archive .*; found .*"),
        ("shards", r"must hold shards of one archive in 2; found 1/1"),
    ],
)
@pytest.mark.parametrize("state", ["whole", "under way"])
def test_what_was_judged_otherwise_is_refused_and_nothing_is_lost(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str, told: str, state: str
):
    engine = write_tiny_engine(tmp_path)
    out = tmp_path / "scores"
    Image.new("L", (60, 40), 255).save(tmp_path / "mask.png")
    first = setup_of(
        folder, engine, view=ViewOptions(mask=tmp_path / "mask.png") if change == "mask" else ViewOptions()
    )
    with monkeypatch.context() as patch:
        if state == "under way":
            _interrupted_after(2, patch)
            with pytest.raises(KeyboardInterrupt):
                judge_shard(replace(run_of(folder, engine, out), setup=first))
        else:
            judge_shard(replace(run_of(folder, engine, out), setup=first))
    before = {name: (out / name).read_bytes() for name in _files(out)}
    more: dict[str, object] = {}
    setup = first
    if change == "engine":
        write_tiny_engine(tmp_path, taps=("layer3", "layer4"))
    elif change == "sidecar":
        path = engine.with_suffix(".json")
        path.write_text(path.read_text() + "\n")
    elif change == "threshold":
        setup = replace(setup, threshold=0.5)
    elif change == "view":
        setup = replace(setup, view=ViewOptions(rotate=90))
    elif change == "mask":
        Image.new("L", (60, 40), 200).save(tmp_path / "mask.png")
    elif change == "backend":
        pytest.importorskip("openvino")
        setup = replace(setup, backend="openvino")
    elif change == "archive":
        setup = replace(setup, archive=str(write_pictures(tmp_path / "other", 3)))
    else:
        more = {"shard": Shard(1, 2)}
    with pytest.raises(UserError, match=told):
        judge_shard(replace(run_of(folder, engine, out, **more), setup=setup))
    assert {name: (out / name).read_bytes() for name in _files(out)} == before


def test_two_runs_of_one_shard_at_once_are_refused(engine: Path, folder: Path, tmp_path: Path):
    with (
        one_writer(tmp_path / WHOLE, "it", ""),
        pytest.raises(UserError, match=r"must have one writer at a time; .*; let it end, or give it another --shard"),
    ):
        judge_shard(run_of(folder, engine, tmp_path))


def test_what_could_not_be_read_is_tried_again_where_that_is_asked(engine: Path, tmp_path: Path):
    folder = write_pictures(tmp_path / "archive", 9)
    (folder / "late.png").write_bytes(b"")
    (folder / "gone.png").write_bytes(b"")
    run = run_of(folder, engine, tmp_path / "scores")
    assert judge_shard(run).errors == 2
    Image.fromarray(picture(50)).save(folder / "late.png")
    (folder / "gone.png").unlink()
    assert (judge_shard(run).errors, judge_shard(run).new) == (2, 0)
    outcome = judge_shard(replace(run, again=True))
    assert (outcome.errors, outcome.new) == (0, 1)
    rows = rows_of(outcome.file)
    assert len(rows) == 10 and rows["late.png"]["verdict"] != "none" and "gone.png" not in rows


def test_a_damaged_part_is_named(engine: Path, folder: Path, tmp_path: Path):
    outcome = judge_shard(run_of(folder, engine, tmp_path))
    outcome.file.write_bytes(outcome.file.read_bytes()[:-200])
    with pytest.raises(UserError, match=r"000001-of-000001\.parquet must be a table that cflow judge wrote"):
        judge_shard(run_of(folder, engine, tmp_path))


def test_a_full_disk_keeps_what_was_judged(
    engine: Path, folder: Path, tmp_path: Path, expected: bytes, capsys: pytest.CaptureFixture[str]
):
    with small_disk(tmp_path / "disk") as disk:
        words = [str(folder), "--engine", str(engine), "--out", str(disk / "scores"), "--backend", "onnxruntime"]
        (disk / "ballast").write_bytes(b"x" * 920_000)  # a part takes some kilobytes
        words += ["--workers", "1", "--part-size", "1"]
        assert run_command(main, words) == 2
        assert "the disk is full" in capsys.readouterr().err.strip().splitlines()[-1]
        kept = sum(heading_of(file).rows for file in _tables(disk))
        assert 0 < kept < 22
        (disk / "ballast").unlink()
        outcome = judge_shard(run_of(folder, engine, disk / "scores"))
        assert outcome.new == 22 - kept and outcome.file.read_bytes() == expected


@pytest.mark.slow
def test_shards_that_are_judged_at_once_do_not_disturb_each_other(engine: Path, folder: Path, tmp_path: Path):
    """As an array of Slurm has them: one folder, many processes, some of which end while others begin."""
    shards = [f"{number}/6" for number in range(1, 7)]
    with contextlib.ExitStack() as stack:
        running = [
            stack.enter_context(_command(folder, engine, tmp_path / "scores", "--part-size", "1", "--shard", shard))
            for shard in shards
        ]
        for command in running:
            _, errors = command.communicate(timeout=300)
            assert command.returncode == 0, errors
    assert merge(tmp_path / "scores", tmp_path / "all.parquet") == (6, 22)
    whole = judge_shard(run_of(folder, engine, tmp_path / "whole")).file
    assert rows_of(tmp_path / "all.parquet") == rows_of(whole)
