"""What of a log and its marks counts for an engine, and what is left out and why."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.common.errors import UserError
from runtime.common.pieces import pieces_of
from runtime.improve.evidence import (
    GONE_RUN,
    OTHER_ENGINE,
    OTHER_RECIPE,
    OTHER_VIEW,
    SEVERAL,
    TAKEN_BACK,
    read_evidence,
)
from runtime.improve.marked import by_part
from runtime.records.log import SMALLEST_CAP, Log
from runtime.records.marks import FALSE_ALARM, MISSED, WITHDRAWN
from runtime.records.read import settings_of_run
from tests.support.log_rows import rows
from tests.support.marked_log import ENGINE, MarkedLog


@pytest.fixture
def log(tmp_path: Path) -> Iterator[MarkedLog]:
    with Log(tmp_path / "i.db") as writer:
        line = MarkedLog(tmp_path / "i.db", writer)
        line.begin()
        yield line


def test_marks_and_the_verdicts_that_nobody_corrected_tell_good_parts_from_bad_ones(log: MarkedLog):
    for score, kind in ((0.2, ""), (0.3, MISSED), (1.2, FALSE_ALARM), (1.5, ""), (0.4, "")):
        log.add(score, kind)
    taken_back = log.add(1.7, FALSE_ALARM)
    log.say(taken_back, WITHDRAWN)
    found = read_evidence(log.path, ENGINE)  # while the log is being written
    assert sorted(found.good) == [0.2, 0.4, 1.2] and sorted(found.bad) == [0.3, 1.5, 1.7]
    assert [(mark.score, mark.false_alarm) for mark in found.marks] == [(0.3, False), (1.2, True)]
    assert (found.threshold, found.judged, found.left_out) == (1.0, 6, {TAKEN_BACK: 1})


def test_what_gave_no_verdict_or_answered_nobody_does_not_count(log: MarkedLog):
    log.add(0.2)
    log.add(float("nan"))
    log.add(1.4, answers=False)
    assert read_evidence(log.path, ENGINE).judged == 1


def test_an_engine_that_another_one_took_the_place_of_is_told_from_the_one_in_force(log: MarkedLog):
    log.add(1.2, FALSE_ALARM)
    assert read_evidence(log.path, ENGINE).judges_now == ""
    log.begin(engine="renewed.onnx", engine_sha256="f" * 64)  # as a promotion does
    log.add(0.2)
    log.recipe = "other"
    log.begin()
    log.add(0.2)
    old, new = (read_evidence(log.path, digest, "") for digest in (ENGINE, "f" * 64))
    assert (old.judges_now, new.judges_now) == ("renewed.onnx", "")
    assert read_evidence(log.path, ENGINE, "other").judges_now == ""
    assert (old.false_alarms, new.false_alarms, new.left_out) == (1, 0, {OTHER_ENGINE: 1})


def test_what_another_engine_recipe_or_mask_judged_is_left_out_and_counted(log: MarkedLog):
    log.add(1.2, FALSE_ALARM)
    log.begin(engine_sha256="f" * 64)
    log.add(1.2, FALSE_ALARM)
    log.begin(engine_sha256=f"{ENGINE}, {'f' * 64}")
    log.add(1.2, FALSE_ALARM)
    log.begin(settings={"mask": "mask.png sha256 1234"})
    log.add(1.3, FALSE_ALARM)
    log.add(0.3)
    found = read_evidence(log.path, ENGINE)
    assert found.left_out == {OTHER_ENGINE: 1, SEVERAL: 1, OTHER_VIEW: 1}
    assert list(found.good) == [0.3, 1.3] and [mark.score for mark in found.marks] == [1.3]


def test_only_the_threshold_of_the_newest_judgement_is_in_force(log: MarkedLog):
    log.add(1.2, FALSE_ALARM)
    log.add(0.9)
    log.threshold = 0.8
    log.add(0.85, FALSE_ALARM)
    log.add(0.5)
    found = read_evidence(log.path, ENGINE)
    assert found.threshold == 0.8 and sorted(found.good) == [0.5, 0.85] and not len(found.bad)
    assert [mark.score for mark in found.marks] == [1.2, 0.85]  # its frame can be judged again
    assert [mark.score for mark in found.at_threshold] == [0.85]


def test_of_several_recipes_one_must_be_named(log: MarkedLog):
    recipes = tuple((name, "tiny.onnx", ENGINE, "") for name in ("big", "small"))
    log.begin(recipes=recipes)
    for log.recipe in ("big", "small", "big"):
        log.add(1.2, FALSE_ALARM)
    with pytest.raises(UserError, match=r"--recipe must name one of the recipes.*; found big, small"):
        read_evidence(log.path, ENGINE)
    log.begin({"mask": "of the recipe that this run began with"}, recipes=recipes)
    log.add(0.3)
    log.recipe = "small"
    log.add(0.4)
    found = read_evidence(log.path, ENGINE, "small")
    assert sorted(found.good) == [0.4, 1.2]
    assert found.recipe == "small" and len(found.marks) == 1 and found.left_out == {OTHER_RECIPE: 2}
    with pytest.raises(UserError, match=r"must hold judgements by the engine eeeeeeeeeeee, with the recipe other"):
        read_evidence(log.path, ENGINE, "other")


def test_a_log_without_the_engine_or_that_is_none_is_one_line(log: MarkedLog, tmp_path: Path):
    with pytest.raises(UserError, match="must hold judgements by the engine"):
        read_evidence(log.path, ENGINE)
    with pytest.raises(UserError, match="must be an inspection log"):
        read_evidence(tmp_path / "none.db", ENGINE)


def test_marks_that_outlived_their_judgements_count_where_their_run_is_known(tmp_path: Path):
    path = tmp_path / "i.db"
    with Log(path, SMALLEST_CAP) as writer:
        log = MarkedLog(path, writer)
        log.begin()
        log.add(1.4, FALSE_ALARM)
        some = rows(1, 4000)
        while "i.000001.db" in {piece.name for piece in pieces_of(path)} or not pieces_of(path):
            writer.append(some)
        log.add(0.3)
        found = read_evidence(path, ENGINE)  # over several files; the run goes on, and is known in each
        assert sorted(found.good) == [0.3, 1.4] and not found.left_out
    for piece in pieces_of(path):
        piece.unlink()
    path.rename(tmp_path / "i.000099.db")
    with Log(path) as writer:
        log = MarkedLog(path, writer)
        log.begin()
        log.add(0.3)
        (tmp_path / "i.000099.db").unlink()
        settings_of_run.cache_clear()
        assert read_evidence(path, ENGINE).left_out == {GONE_RUN: 1}


def test_where_alarms_that_nobody_called_false_lie_is_kept(log: MarkedLog):
    import numpy as np

    from runtime.result import result_of

    anomaly_map = np.zeros((32, 48), np.float32)
    anomaly_map[4:6, 10:13] = 1.5
    log.add(0, result=result_of(anomaly_map, 1.5, (1.0, 1.0), {"execute": 1.0}))
    log.add(1.2)
    boxes = {alarm.box for alarm in read_evidence(log.path, ENGINE).alarms}
    assert boxes == {(10, 4, 3, 2), None}


def test_frames_of_one_part_are_one_piece_of_evidence(log: MarkedLog):
    now = time.time()
    for index in range(3):
        log.add(1.2, FALSE_ALARM, part="SN-1", captured_s=now + 100 * index)  # one part, by its id
    for index in range(3):
        log.add(1.2, FALSE_ALARM, name=f"camera_{index:06d}", captured_s=now + index)  # one after the other
    log.add(1.2, FALSE_ALARM, name="camera_000100", captured_s=now + 60)
    for index in range(2):
        log.add(1.2, FALSE_ALARM, name=f"{index}.png", captured_s=now)  # files are parts
    found = by_part(read_evidence(log.path, ENGINE).marks)
    assert sorted(map(len, found)) == [1, 1, 1, 3, 3]
