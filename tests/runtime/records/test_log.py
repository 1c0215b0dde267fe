"""The inspection log as its writer sees it: whole after anything, bounded, and one line where it cannot be written."""

import math
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runtime.common.errors import UserError
from runtime.common.pieces import PIECES, pieces_of
from runtime.records import database, schema
from runtime.records.database import Held, open_to_read
from runtime.records.log import SMALLEST_CAP, Log
from runtime.records.read import FIELDS, Query, audit, judgements
from runtime.records.run import RunRecord
from runtime.sinks.inspection_log import LogSink
from runtime.triggers.trigger import Trigger
from tests.support.judgements import AGE_S, TIME_S, judgement
from tests.support.log_rows import asked, frames, rows
from tests.support.paths import ROOT

RUN = RunRecord("run-1", engine="tiny.onnx", engine_sha256="a" * 64, sidecar_sha256="b" * 64, threshold=1.0)


def test_a_judgement_is_there_with_everything_that_is_known_of_it(tmp_path: Path):
    asked_for = replace(
        judgement(7, 1.5),
        trigger=Trigger("SN-7", judgement(7).judged_s - 0.03, "mqtt"),
        run=RUN.id,
        recipe="cable red",
        decision="good",
    )
    timed = replace(asked_for, frame=replace(asked_for.frame, camera_s=2.0**40 + 2.0**-10))
    with LogSink(log := Log(tmp_path / "i.db")) as sink:
        log.begin(RUN)
        sink.write(timed)
    [record] = judgements(tmp_path / "i.db", Query())
    assert list(record) == list(FIELDS)
    assert record == {
        "id": 1,
        "time": "2023-11-14T22:13:20.530+00:00",
        "part": "SN-7",
        "recipe": "cable red",
        "verdict": "anomalous",
        "score": 1.5,
        "threshold": 1.0,
        "reason": "",
        "source": "camera:0",
        "name": "f000007",
        "frame": 7,
        "age_ms": 1e3 * AGE_S,
        "trigger": "mqtt",
        "asked": "2023-11-14T22:13:20.505+00:00",  # 30 ms before the verdict, which came 5 ms after the frame
        "answer_ms": 30.0,
        "late": 0,
        "answer": 1,
        "decision": "good",
        "camera_s": 2.0**40 + 2.0**-10,
        "boxes": '[{"x": 30, "y": 20, "width": 10, "height": 10, "peak": 1.5}]',
        "latency_ms": '{"execute": 1.5}',
        "parts": None,
        "run": "run-1",
        "version": RUN.version,
        "engine": "tiny.onnx",
        "engine_sha256": "a" * 64,
        "sidecar_sha256": "b" * 64,
    }


ODD = ['line "1"', "Anlage Süd \U0001f50d", "a\nb", "'; DROP TABLE runs; --", "\udce9.png", "", "x" * 5000]


@pytest.mark.parametrize("name", ODD)
def test_odd_names_and_results_without_a_number_are_kept(name: str, tmp_path: Path):
    one = judgement(0, source=name)
    unjudged = one.result.unjudged(f"because of {name}")
    assert math.isnan(unjudged.image_score)
    odd = replace(
        one, result=unjudged, frame=replace(one.frame, name=name), trigger=Trigger(name, one.judged_s, "http")
    )
    with LogSink(Log(tmp_path / "i.db")) as sink:
        sink.write_batch([odd, judgement(1)])
    kept = name.replace("\udce9", "\\udce9")
    first, second = judgements(tmp_path / "i.db", Query(), newest_first=False)
    assert [first[field] for field in ("source", "name", "part")] == [kept] * 3
    assert (first["score"], first["verdict"], first["reason"].startswith("because")) == (None, "none", True)
    assert (second["part"], second["frame"]) == (None, 1)
    assert [record["id"] for record in judgements(tmp_path / "i.db", Query(part=kept))] == [1]


def test_the_order_is_that_of_the_verdicts_though_the_clock_is_set_back(tmp_path: Path):
    moments = [TIME_S + 100, TIME_S + 101, TIME_S - 3600, TIME_S - 3599]
    with LogSink(Log(tmp_path / "i.db", keep_s=86400)) as sink:
        for index, moment in enumerate(moments):
            one = judgement(index)
            sink.write(replace(one, frame=replace(one.frame, captured_s=moment)))
    assert frames(tmp_path / "i.db") == [0, 1, 2, 3]
    newest = [record["frame"] for record in judgements(tmp_path / "i.db", Query())]
    assert newest == [3, 2, 1, 0]
    assert frames(tmp_path / "i.db", Query(until_s=TIME_S)) == [2, 3]


def test_a_batch_is_written_whole_or_not_at_all(tmp_path: Path):
    with Log(tmp_path / "i.db") as log:
        with pytest.raises(OSError):
            log.append([*rows(0, 3), (None,) * len(schema.INSPECTION_COLUMNS)])  # the last has no run
        log.append(rows(3, 2))
    assert frames(tmp_path / "i.db") == [3, 4]


PROGRAM = """
import sys
from pathlib import Path
from runtime.records.log import Log
from runtime.sinks.delivery import Delivery
from runtime.sinks.inspection_log import LogSink
from tests.support.judgements import judgement
delivery = Delivery(LogSink(Log(Path(sys.argv[1]), 16_000_000)), patience_s=30)
for index in range(100_000):
    delivery.offer(judgement(index, size=(4, 4)))
    if index % 20 == 0:
        print(delivery.counts().delivered, flush=True)
"""


def test_what_was_counted_as_delivered_is_there_after_kill_9(tmp_path: Path):
    path, rng, there = tmp_path / "i.db", random.Random(4), 0
    for _ in range(5):
        child = subprocess.Popen([sys.executable, "-c", PROGRAM, path], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        last = 0
        while last < 500:
            last = int(child.stdout.readline())
        time.sleep(rng.uniform(0, 0.1))
        os.kill(child.pid, signal.SIGKILL)
        told, _ = child.communicate(timeout=120)
        delivered = max([last, *map(int, told.split()[:-1])])  # the last may be cut
        now = frames(path)
        assert len(now) - there >= delivered >= 500
        assert now[there:] == list(range(len(now) - there))
        assert asked(path, "PRAGMA integrity_check") == [("ok",)]
        there = len(now)


def _with(row: tuple[Any, ...], **others: Any) -> tuple[Any, ...]:
    return tuple((dict(zip(schema.INSPECTION_COLUMNS, row, strict=True)) | others).values())


def _fill(log: Log, batches: int, first: int = 0) -> int:
    for batch in range(batches):
        log.append([_with(row, reason="x" * 1000) for row in rows(first + 200 * batch, 200)])
    return first + 200 * batches


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def test_a_capped_log_keeps_the_newest_in_whole_files_and_all_of_the_audit(tmp_path: Path):
    path = tmp_path / "i.db"
    with Log(path, SMALLEST_CAP) as log:
        log.begin(RUN)
        count, most = 0, 0
        for _ in range(20):
            count = _fill(log, 5, count)
            most = max(most, _bytes(tmp_path))
        log.begin(replace(RUN, id="run-2", threshold=2.0))
        count = _fill(log, 5, count)
    assert most <= SMALLEST_CAP and len(pieces_of(path)) == PIECES - 1
    found = list(judgements(path, Query(), newest_first=False))
    assert [record["frame"] for record in found] == list(range(found[0]["frame"], count))
    assert [record["id"] for record in found] == [record["frame"] + 1 for record in found]
    assert found[0]["frame"] > 0 and _bytes(tmp_path) > SMALLEST_CAP / 2
    assert [change["what"] for change in audit(path)] == ["threshold", "log"]
    with Log(path, SMALLEST_CAP) as log:  # a restart, right after a file was begun too
        _fill(log, 1, count)
    assert frames(path)[-200:] == list(range(count, count + 200))
    for piece in (*pieces_of(path), path):
        assert asked(piece, "PRAGMA integrity_check") == [("ok",)]
        assert ("run-1",) in asked(piece, "SELECT id FROM runs") or piece == path


def test_files_older_than_they_are_to_be_kept_go(tmp_path: Path):
    path, day = tmp_path / "i.db", 86400.0
    with Log(path, keep_s=16 * day) as log:
        for index in range(6):
            log.append([_with(*rows(index, 1), captured_s=TIME_S + 0.6 * day * index)])
        assert frames(path) == list(range(6)) and len(pieces_of(path)) == 2
        old = time.time() - 17 * day
        os.utime(pieces_of(path)[0], (old, old))
    assert frames(path) == list(range(6))
    with Log(path, keep_s=16 * day):
        assert frames(path) == list(range(3, 6))  # at the start already
    assert len(list(audit(path))) == 0 and len(pieces_of(path)) == 1


def test_a_reader_meets_every_judgement_once_while_files_are_begun(tmp_path: Path):
    path, wrong, done = tmp_path / "i.db", [], threading.Event()
    with Log(path, SMALLEST_CAP) as log:
        log.append(rows(0, 1))

        def read() -> None:
            while not done.is_set():
                for newest_first in (False, True):
                    try:
                        ids = [record["id"] for record in judgements(path, Query(), newest_first)]
                    except (UserError, OSError) as error:
                        wrong.append(str(error))
                        return
                    whole = list(range(min(ids), max(ids) + 1))
                    if ids != (whole[::-1] if newest_first else whole):
                        wrong.append(ids)

        readers = [threading.Thread(target=read) for _ in range(2)]
        for reader in readers:
            reader.start()
        count = _fill(log, 40, 1)
        done.set()
        for reader in readers:
            reader.join()
        assert not wrong and frames(path)[-1] == count - 1
        _fill(log, 5, count)  # nobody reads: what waited for that is done
        assert len(pieces_of(path)) >= 5


def test_who_reads_while_his_file_becomes_an_older_one_reads_on(tmp_path: Path):
    path = tmp_path / "i.db"
    with Log(path, SMALLEST_CAP) as log:
        _fill(log, 3)
        reading = judgements(path, Query(), newest_first=False)
        begun = [next(reading)["frame"] for _ in range(10)]
        count = _fill(log, 10, 600)
        assert pieces_of(path)
        rest = [record["frame"] for record in reading]
    assert begun + rest == list(range(10 + len(rest))) and len(rest) >= 590
    assert frames(path) == list(range(count))


def _text(path: Path) -> None:
    path.write_text("no database at all, and longer than the header of one would be, which has 100 bytes" * 3)


def _foreign(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE mine (x)")
        connection.commit()


def _newer(path: Path) -> None:
    Log(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")


REFUSED = {
    "text": (_text, "another kind of file"),
    "another program's": (_foreign, "another program's database"),
    "newer": (_newer, "version 99"),
    "folder": (Path.mkdir, "a folder"),
    "pipe": (os.mkfifo, "no regular file"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_log_is_refused_in_one_line_and_stays_as_it_is(kind: str, tmp_path: Path):
    make, found = REFUSED[kind]
    path = tmp_path / "i.db"
    make(path)
    before = path.read_bytes() if path.is_file() else b""
    with pytest.raises(UserError, match=found) as refused:
        Log(path)
    assert "\n" not in str(refused.value) and str(path) in str(refused.value)
    assert (path.read_bytes() if path.is_file() else b"") == before
    assert not list(tmp_path.glob("i.db-*"))
    with pytest.raises(UserError):
        list(judgements(path, Query()))


def test_an_older_log_is_brought_up_to_date_and_a_newer_one_is_not_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path, known = tmp_path / "i.db", len(schema.MIGRATIONS)
    with Log(path) as log:
        log.append(rows(0, 3))
    with monkeypatch.context() as newer:
        newer.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, "CREATE TABLE newer (id INTEGER PRIMARY KEY)"))
        with Log(path) as log:
            log.append(rows(3, 1))
        assert asked(path, "SELECT count(*) FROM newer") == [(0,)] and frames(path) == [0, 1, 2, 3]
    with pytest.raises(UserError, match=rf"of version {known} or older; found version {known + 1}; use the newer"):
        Log(path)
    with pytest.raises(UserError, match=rf"version {known + 1}"), open_to_read(path):
        pass


def test_each_recipe_of_a_run_has_the_hashes_of_what_judged_in_every_file_of_the_log(tmp_path: Path):
    recipes = (("red", "red.onnx", "c" * 64, "d" * 64), ("blue", "blue.onnx", "e" * 64, "f" * 64))
    path = tmp_path / "i.db"
    judged = [replace(judgement(i, 0.5), run=RUN.id, recipe=name) for i, name in enumerate(("red", "blue", ""))]
    with LogSink(Log(path)) as sink:
        sink.log.begin(replace(RUN, recipes=recipes))
        path.unlink()  # begun anew
        sink.write_batch(judged)
    known = [(one["recipe"], one["engine"], one["sidecar_sha256"]) for one in judgements(path, Query())]
    assert known == [("", "tiny.onnx", "b" * 64), ("blue", "blue.onnx", "f" * 64), ("red", "red.onnx", "d" * 64)]


def test_a_file_from_before_recipes_is_read_beside_newer_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as older:
        older.setattr(schema, "MIGRATIONS", schema.MIGRATIONS[:1])
        columns = schema.INSPECTION_COLUMNS[:-1]
        older.setattr("runtime.records.log.INSERT_INSPECTION", schema._insert("inspections", columns))
        with Log(tmp_path / "i.000001.db") as log:
            log.append([row[: len(columns)] for row in rows(0, 3)])
    with Log(tmp_path / "i.db") as log:
        log.append(rows(3, 1))
    assert frames(tmp_path / "i.db") == [0, 1, 2, 3]
    assert {one["parts"] for one in judgements(tmp_path / "i.db", Query())} == {None}


def test_a_step_that_fails_leaves_the_log_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "i.db"
    with Log(path) as log:
        log.append(rows(0, 3))
    with monkeypatch.context() as newer:
        newer.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, "CREATE TABLE marks (id); CREATE TABLE runs (id)"))
        with pytest.raises(OSError, match="already exists"):
            Log(path)
    with Log(path) as log:
        log.append(rows(3, 1))
    assert frames(path) == [0, 1, 2, 3]


def test_a_log_that_another_program_holds_fails_and_recovers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(database, "BUSY_S", 0.05)
    path = tmp_path / "i.db"
    with Log(path) as log, closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(Held, match="another program that holds it"):
            log.append(rows(0, 2))
        with pytest.raises(Held):
            Log(path).begin(RUN)
        other.execute("ROLLBACK")
        log.append(rows(2, 2))
        assert frames(path) == [2, 3]


@pytest.mark.parametrize("gone", [Path.unlink, lambda path: path.rename(path.with_name("moved.db"))])
def test_a_log_that_others_take_away_is_begun_anew(gone, tmp_path: Path):
    path = tmp_path / "i.db"
    with Log(path) as log:
        log.begin(RUN)
        log.append(rows(0, 2))
        gone(path)
        log.append(rows(2, 2))
        assert frames(path) == [2, 3] and asked(path, "SELECT id FROM runs") == [("run-1",)]
    assert asked(path, "PRAGMA integrity_check") == [("ok",)]


def _changes(path: Path) -> list[tuple[str, str, str]]:
    return [(change["what"], change["old"], change["new"]) for change in audit(path)][::-1]


def test_what_a_run_has_otherwise_than_the_one_before_is_in_the_audit(tmp_path: Path):
    path = tmp_path / "i.db"
    masked = replace(RUN, settings={"mask": "mask.png sha256 1", "sources": "camera:0"})
    for run in (
        masked,
        replace(masked, id="run-2"),  # nothing new
        replace(masked, id="run-3", engine_sha256="c" * 64, settings={"mask": "mask.png sha256 2", "roi": "1,2,3,4"}),
    ):
        with Log(path) as log:
            log.begin(run)
    assert _changes(path) == [
        ("log", "", "begun"),
        ("engine", "a" * 64, "c" * 64),
        ("mask", "mask.png sha256 1", "mask.png sha256 2"),
        ("roi", "", "1,2,3,4"),
        ("sources", "camera:0", ""),
    ]
    assert {change["who"] for change in audit(path)} == {RUN.who} and "@" in RUN.who
    assert {change["origin"] for change in audit(path)} == {"start"}


def test_a_change_that_is_known_already_is_not_entered_again_at_the_next_start(tmp_path: Path):
    path = tmp_path / "i.db"
    with Log(path) as log:
        log.begin(RUN)
        log.note({"threshold": "2", "sidecar": "d" * 64}, "page, signed in with the token", "192.0.2.7")
    with Log(path) as log:
        log.begin(replace(RUN, id="run-2", threshold=2.0, sidecar_sha256="d" * 64))
    assert _changes(path) == [("log", "", "begun"), ("threshold", "1", "2"), ("sidecar", "b" * 64, "d" * 64)]
    assert [change["origin"] for change in audit(path)] == ["192.0.2.7", "192.0.2.7", "start"]


def test_an_archive_is_read_where_nothing_can_be_written_beside_it(tmp_path: Path):
    with Log(tmp_path / "i.db") as log:
        log.append(rows(0, 3))
    assert not list(tmp_path.glob("i.db-*"))
    mount = ["mount", "--bind", str(tmp_path), str(tmp_path)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting needs root")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(tmp_path)], check=True)
        assert frames(tmp_path / "i.db") == [0, 1, 2]
        with pytest.raises(UserError, match="can be opened and written"):
            Log(tmp_path / "i.db")
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)
