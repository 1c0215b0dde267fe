"""Verdicts that people correct on the page: through the API, into the log, with the frame as it was judged."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from runtime.records.log import Log
from runtime.records.marks import FALSE_ALARM, MISSED, marks, pictures_of, standing
from runtime.records.read import audit
from runtime.serve import marking
from runtime.serve.marking import KEPT, NO_LOG
from runtime.sinks.inspection_log import LogSink
from runtime.sinks.judgement import Judgement
from runtime.triggers.trigger import Trigger
from tests.support.serve_rig import TOKEN, Answer, Rig, serving, until
from tests.support.small_disk import fill, small_disk

ASKED = {"X_Requested_By": "cflow-edge"}


@contextmanager
def logged(folder: Path, token: str | None = None) -> Iterator[tuple[Rig, LogSink, Path]]:
    """Serve a page beside a log."""
    path = folder / "i.db"
    with LogSink(Log(path)) as sink, serving(folder, token, log=sink.log) as rig:
        yield rig, sink, path


def _judged(rig: Rig, sink: LogSink, level: int, part: str = "") -> Judgement:
    one = rig.judge(level)
    if part:
        one = replace(one, trigger=Trigger(part, one.judged_s - 0.01, "http"))
        rig.server.write(one)
    sink.write(one)
    return one


def _anomaly(rig: Rig) -> dict[str, Any]:
    newest: dict[str, Any] = until(lambda: rig.state()["anomalies"])[0]
    return newest


def _mark(rig: Rig, number: int, kind: str = FALSE_ALARM, **said: str) -> Answer:
    return rig.ask("/api/mark", "POST", {"number": number, "kind": kind, **said}, **ASKED)


def test_an_anomaly_is_marked_undone_and_marked_again_with_its_very_pixels(tmp_path: Path):
    with logged(tmp_path) as (rig, sink, path):
        _judged(rig, sink, 20)
        one = _judged(rig, sink, 200)
        number = _anomaly(rig)["picture"]
        said = _mark(rig, number, reason="a shadow", name="Ann")
        assert (said.status, said.json()) == (200, {"judgement": 2})
        [mark] = rig.ask("/api/marks").json()["marks"]
        assert (mark["number"], mark["reason"], mark["who"]) == (number, "a shadow", "Ann, page, open to all")
        kept = np.asarray(Image.open(pictures_of(path) / marks(path)[0]["picture"]))
        assert np.array_equal(kept, one.frame.image)
        assert rig.ask("/api/audit").json()["changes"][0]["new"] == "false_alarm: a shadow"
        again = _mark(rig, number)
        assert again.status == 409 and "false alarm by Ann" in again.json()["error"]
        undone = rig.ask("/api/withdraw", "POST", {"judgement": 2, "name": "Ben"}, **ASKED)
        assert undone.status == 200 and rig.ask("/api/marks").json()["marks"] == []
        assert rig.ask("/api/withdraw", "POST", {"judgement": 2}, **ASKED).status == 409
        assert _mark(rig, number).status == 200
        assert len(marks(path)) == 3 and rig.server.troubles.counts() == {}


def test_a_part_that_was_called_good_is_marked_as_missed(tmp_path: Path):
    with logged(tmp_path) as (rig, sink, path):
        _judged(rig, sink, 20, "SN-1")
        [part] = rig.state()["parts"]
        assert _mark(rig, part["number"]).status == 409  # it was no alarm
        assert _mark(rig, part["number"], MISSED).status == 200
        [mark] = standing(path).values()
        assert mark["kind"] == MISSED and mark["about"]["part"] == "SN-1" and mark["about"]["size"] == [32, 48]


def test_the_picture_that_is_looked_at_live_can_be_marked(tmp_path: Path):
    with logged(tmp_path) as (rig, sink, path):
        _judged(rig, sink, 20)
        until(lambda: rig.ask("/live/0.jpg").status == 200)
        number = int(rig.ask("/live/0.jpg").headers["X-Frame-Number"])
        assert _mark(rig, number, MISSED).status == 200 and list(standing(path)) == [1]


def test_without_a_log_nothing_can_be_marked_and_the_page_says_why(tmp_path: Path):
    with serving(tmp_path) as rig:
        rig.judge(200)
        assert rig.ask("/api/marks").json() == {"kept": False, "why": NO_LOG, "marks": []}
        said = _mark(rig, _anomaly(rig)["picture"])
        assert (said.status, said.json()["error"]) == (404, NO_LOG)
        assert not rig.server.marking._kept  # no frame is held for nothing


def test_without_the_token_nothing_is_marked(tmp_path: Path):
    with logged(tmp_path, TOKEN) as (rig, sink, path):
        _judged(rig, sink, 200)
        known = {"Authorization": f"Bearer {TOKEN}"}
        number = until(lambda: rig.state(**known)["anomalies"])[0]["picture"]
        assert _mark(rig, number).status == 401
        assert rig.ask("/api/marks").status == 401
        body = {"number": number, "kind": FALSE_ALARM}
        assert rig.ask("/api/mark", "POST", body).status == 403  # as another site's page would
        assert marks(path) == []
        assert rig.ask("/api/mark", "POST", body, **known).status == 200
        assert marks(path)[0]["who"] == "page, signed in with the token"


@pytest.mark.parametrize(
    "body",
    [
        {"number": 1},
        {"number": 1, "kind": "withdrawn"},
        {"number": True, "kind": "missed"},
        {"number": -1, "kind": "missed"},
        {"number": 2**60, "kind": "missed"},
        {"number": 1, "kind": ["missed"]},
        {"number": 1, "kind": "missed", "reason": "x" * 301},
        {"number": 1, "kind": "missed", "name": "x" * 65},
        {"number": 1, "kind": "missed", "reason": None},
        {"number": 1, "kind": "missed", "more": 1},
    ],
)
def test_what_is_no_mark_is_refused(body: dict[str, Any], tmp_path: Path):
    with logged(tmp_path) as (rig, _, path):
        assert rig.ask("/api/mark", "POST", body, **ASKED).status == 400
        assert marks(path) == [] and rig.server.troubles.counts() == {}


def test_what_the_page_or_the_log_does_not_know_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(marking, "WRITTEN_S", 0.2)
    with logged(tmp_path) as (rig, _, path):
        assert _mark(rig, 999).status == 404
        assert rig.ask("/api/withdraw", "POST", {"judgement": 999}, **ASKED).status == 404
        rig.judge(200)  # the log's sink has lost it
        said = _mark(rig, _anomaly(rig)["picture"])
        assert said.status == 404 and "must be in the log" in said.json()["error"]
        assert marks(path) == [] and not pictures_of(path).exists()


def test_the_frames_that_wait_to_be_marked_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with logged(tmp_path) as (rig, sink, _):
        for index in range(KEPT + 5):
            _judged(rig, sink, 20, f"SN-{index}")
        assert len(rig.server.marking._kept["part"]) == KEPT
        monkeypatch.setattr(marking, "KEPT_BYTES", 1)
        _judged(rig, sink, 20, "SN-last")
        assert len(rig.server.marking._kept["part"]) == 1


def test_on_a_full_disk_the_page_says_so_and_the_next_click_works(tmp_path: Path):
    with small_disk(tmp_path / "disk") as disk:
        path = disk / "i.db"
        with LogSink(Log(path)) as sink, serving(tmp_path, log=sink.log) as rig:
            _judged(rig, sink, 200)
            number = _anomaly(rig)["picture"]
            filler = fill(disk)
            said = _mark(rig, number)
            assert said.status == 507 and "No space left" in said.json()["error"]
            filler.unlink()
            assert marks(path) == [] and _mark(rig, number).status == 200
            assert Image.open(pictures_of(path) / "000000001.png").size == (48, 32)


def test_marks_are_there_after_a_restart_and_in_the_audit(tmp_path: Path):
    with logged(tmp_path) as (rig, sink, path):
        _judged(rig, sink, 200)
        assert _mark(rig, _anomaly(rig)["picture"]).status == 200
    with logged(tmp_path) as (rig, sink, path):
        [mark] = rig.ask("/api/marks").json()["marks"]
        assert (mark["judgement"], mark["number"]) == (1, 0)
        assert rig.ask("/api/withdraw", "POST", {"judgement": 1}, **ASKED).status == 200
        assert [change["old"] for change in audit(path)] == [FALSE_ALARM, ""]
