"""Marks in the inspection log: only added to, never lost, and refused in one line where they do not fit."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from runtime.common.errors import UserError
from runtime.common.pieces import pieces_of
from runtime.records import database
from runtime.records import marks as marks_module
from runtime.records.database import Held
from runtime.records.door import door
from runtime.records.log import SMALLEST_CAP, Log
from runtime.records.marks import (
    FALSE_ALARM,
    LONGEST_REASON,
    MISSED,
    WITHDRAWN,
    Mark,
    Refused,
    Unknown,
    add_mark,
    judgement,
    marks,
    standing,
)
from runtime.records.read import audit
from runtime.records.schema import MIGRATIONS
from tests.support.log_rows import asked, rows
from tests.support.paths import ROOT
from tests.support.small_disk import fill, small_disk


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Ten judgements: 1 to 5 good, 6 to 10 anomalous."""
    path = tmp_path / "i.db"
    with Log(path) as writer:
        writer.append(rows(0, 5))
        writer.append(rows(5, 5, 1.5))
    return path


def _mark(path: Path, number: int, kind: str = FALSE_ALARM, **said: str) -> None:
    add_mark(path, Mark(judgement(path, number), kind, **said))


def test_a_mark_can_be_undone_and_made_again_and_every_step_stays(log: Path):
    _mark(log, 7, reason="a shadow", who="Ann")
    _mark(log, 2, MISSED)
    _mark(log, 7, WITHDRAWN, who="Ben")
    assert list(standing(log)) == [2]
    _mark(log, 7)
    assert list(standing(log)) == [2, 7]
    assert [(mark["judgement"], mark["kind"], mark["who"]) for mark in marks(log)] == [
        (7, FALSE_ALARM, "Ann"),
        (2, MISSED, ""),
        (7, WITHDRAWN, "Ben"),
        (7, FALSE_ALARM, ""),
    ]
    changes = [(change["what"], change["old"], change["new"]) for change in audit(log)][::-1]
    assert changes[0] == ("judgement 7", "", "false_alarm: a shadow")
    assert changes[2] == ("judgement 7", FALSE_ALARM, WITHDRAWN)


@pytest.mark.parametrize(
    ("number", "kind", "said"),
    [
        (2, FALSE_ALARM, "must be anomalous; found judgement 2: good"),
        (7, MISSED, "must be good; found judgement 7: anomalous"),
        (7, WITHDRAWN, "must be marked to be undone"),
        (8, FALSE_ALARM, "must not be marked yet; found false alarm by Ann"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_written(number: int, kind: str, said: str, log: Path):
    _mark(log, 8, who="Ann")
    with pytest.raises(Refused, match=said):
        _mark(log, number, kind)
    assert len(marks(log)) == 1


@pytest.mark.parametrize("number", [0, 11, -3])
def test_an_unknown_number_is_said(number: int, log: Path):
    with pytest.raises(Unknown, match=f"judgement {number}; found none"):
        judgement(log, number)


@pytest.mark.parametrize("name", ["none.db", "."])
def test_where_there_is_no_log_none_is_made(name: str, tmp_path: Path):
    path = tmp_path / name
    with pytest.raises(UserError, match="must be an inspection log"):
        marks(path)
    with pytest.raises(UserError, match="must be an inspection log"):
        add_mark(path, Mark({"id": 1, "verdict": "good"}, MISSED))
    assert not (tmp_path / "none.db").exists()


def test_hostile_and_long_words_are_kept_as_they_are_and_bounded(log: Path):
    words = "'); DROP TABLE marks; --<script>\x00\udce9" + "x" * 10_000
    _mark(log, 6, reason=words, who="\udce9")
    [mark] = marks(log)
    assert mark["reason"].startswith("'); DROP TABLE marks; --<script>\x00\\udce9x") and mark["who"] == "\\udce9"
    assert len(mark["reason"]) <= LONGEST_REASON + 5


def test_marks_and_what_they_are_about_outlive_every_file_of_the_log(tmp_path: Path):
    path = tmp_path / "i.db"
    with Log(path, SMALLEST_CAP) as log:
        log.append(rows(0, 1, 1.5))
        log.mark(Mark(judgement(path, 1), FALSE_ALARM, "a shadow", "Ann"))
        some = rows(1, 2000)
        while len(pieces_of(path)) < 15 or "i.000001.db" in {piece.name for piece in pieces_of(path)}:
            log.append(some)
    assert not asked(path, "SELECT 1 FROM inspections WHERE id = 1")
    assert judgement(path, 1)["score"] == 1.5
    _mark(path, 1, WITHDRAWN)
    _mark(path, 1)
    assert [mark["kind"] for mark in marks(path)] == [FALSE_ALARM, WITHDRAWN, FALSE_ALARM]
    path.unlink()  # and when the newest file has gone, the one before it has them
    assert len(marks(path)) == 1
    with Log(path):
        assert len(marks(path)) == 1


def test_more_marks_than_a_file_may_hold_do_not_begin_a_file_with_every_judgement(tmp_path: Path):
    path = tmp_path / "i.db"
    with Log(path, SMALLEST_CAP) as log:
        log.append(rows(0, 1000, 1.5))
        for number in range(1, 901):
            log.mark(Mark(judgement(path, number) | {"reason": "x" * 500}, FALSE_ALARM))
        for index in range(40):
            log.append(rows(1000 + index, 1))
    assert len(pieces_of(path)) <= 2 and len(marks(path)) == 900


@pytest.mark.parametrize("version", [1, 2])
def test_a_log_of_an_older_release_takes_marks(version: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "i.db"
    with monkeypatch.context() as older:
        older.setattr(database.schema, "MIGRATIONS", MIGRATIONS[:2])  # rows have the second's columns
        with Log(path) as log:
            log.append(rows(0, 1, 1.5))
    if version == 1:
        with closing(sqlite3.connect(path)) as connection:
            connection.executescript(
                "DROP TABLE recipes; ALTER TABLE inspections DROP COLUMN parts; PRAGMA user_version = 1"
            )
    assert marks(path) == [] and standing(path) == {}
    _mark(path, 1)
    assert list(standing(path)) == [1]


def test_a_new_file_after_one_of_an_older_release_has_all_that_this_one_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "i.db"
    with monkeypatch.context() as older:
        older.setattr(database.schema, "MIGRATIONS", MIGRATIONS[:2])
        with Log(path) as log:
            log.append(rows(0, 1, 1.5))
            log.note({"threshold": "1"}, "Ann", "test")
    path.rename(tmp_path / "i.000001.db")
    with Log(path) as log:
        log.append(rows(1, 1))
        assert asked(path, "SELECT max(id) FROM inspections") == [(2,)] and len(list(audit(path))) == 1
        _mark(path, 1)
    assert list(standing(path)) == [1]


def test_of_two_who_mark_at_once_one_is_told_who_was_first(log: Path):
    said: list[str] = []

    def mark(writer: Log, who: str) -> None:
        try:
            writer.mark(Mark(judgement(log, 7), FALSE_ALARM, who=who))
        except Refused as error:
            said.append(str(error))

    with Log(log) as writer:
        threads = [threading.Thread(target=mark, args=(writer, name)) for name in ("Ann", "Ben", "Cem", "Dora")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with pytest.raises(Refused):
            _mark(log, 7)  # and from beside it
    assert len(marks(log)) == 1 and len(said) == 3 and all("false alarm by" in text for text in said)


MARKER = """
import sys
import time
from pathlib import Path
from runtime.records.marks import FALSE_ALARM, Mark, add_mark, judgement
path = Path(sys.argv[1])
for number in range(1, 100_000):
    add_mark(path, Mark(judgement(path, number), FALSE_ALARM))
    print(number, flush=True)
    time.sleep(0.02)  # people take longer; without any pause SQLite hardly lets the line in
"""


def test_what_was_said_to_be_marked_is_there_after_kill_9_beside_a_log_that_begins_new_files(tmp_path: Path):
    path = tmp_path / "i.db"
    with Log(path, SMALLEST_CAP) as log:
        log.append(rows(0, 2000, 1.5))
        child = subprocess.Popen([sys.executable, "-c", MARKER, path], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        index, told = 2000, 0
        while told < 20 or len(pieces_of(path)) < 2:
            log.append(rows(index, 500))
            index += 500
            told = int(child.stdout.readline())
        os.kill(child.pid, signal.SIGKILL)
        rest, _ = child.communicate(timeout=120)
        last = max([told, *map(int, rest.split()[:-1])])
        log.append(rows(index, 1))
        assert {*range(1, last + 1)} <= standing(path).keys()
        log.mark(Mark(judgement(path, 2000), FALSE_ALARM))
    for file in (path, *pieces_of(path)):
        assert asked(file, "PRAGMA integrity_check") == [("ok",)]
    assert asked(path, "SELECT count(*) - count(DISTINCT id) FROM inspections") == [(0,)]


def test_while_another_marks_no_new_file_is_begun(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "i.db"
    with Log(path, SMALLEST_CAP) as log:
        with door(path):
            for _ in range(5):
                log.append(rows(0, 4000))
            assert not pieces_of(path)
        log.append(rows(0, 1))
        assert len(pieces_of(path)) == 1


def test_a_log_that_another_program_holds_is_said_and_nothing_is_marked(log: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(marks_module, "PATIENCE_S", 0.05)
    with closing(sqlite3.connect(log, isolation_level=None)) as viewer:
        viewer.execute("BEGIN IMMEDIATE")
        with pytest.raises(Held, match="must be free to be written"):
            _mark(log, 7)
        viewer.execute("ROLLBACK")
    _mark(log, 7)
    assert list(standing(log)) == [7]


def test_on_a_full_disk_nothing_is_marked_and_nothing_is_lost(tmp_path: Path):
    with small_disk(tmp_path / "disk") as disk:
        path = disk / "i.db"
        with Log(path) as log:
            log.append(rows(0, 3, 1.5))
            log.mark(Mark(judgement(path, 1), FALSE_ALARM))
            filler = fill(disk)
            about: dict[str, Any] = judgement(path, 2) | {"reason": "x" * 20_000}
            with pytest.raises(OSError, match="No space left"):
                log.mark(Mark(about, FALSE_ALARM))
            filler.unlink()
            assert list(standing(path)) == [1]
            log.mark(Mark(about, FALSE_ALARM))
            assert list(standing(path)) == [1, 2]
