"""`cflow report --day`: what it counts is held to a plain count of the rows; times to Python's own zones."""

import re
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import pytest

from runtime import infer
from runtime.common.errors import run_command
from runtime.period import main as period
from runtime.period.facts import MOST_ROWS, WORST, gather
from runtime.period.span import day, month, shift, zone_of
from runtime.records.checks import Check, add_check
from runtime.records.log import Log
from runtime.records.marks import CORRECTS, FALSE_ALARM, MISSED, WITHDRAWN, Mark
from runtime.records.run import RunRecord
from runtime.report import main as report
from runtime.sinks.inspection_log import row_of
from runtime.triggers.trigger import Trigger
from tests.runtime.checks.test_check import BRIGHT, DARK, picture
from tests.support.judgements import TIME_S, judgement
from tests.support.log_rows import rows
from tests.support.tiny_engine import write_tiny_engine

BERLIN = zone_of("Europe/Berlin")
DAY = "2023-11-14"  # of the rows, in UTC


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Six good judgements in an older file, four anomalous ones in the newest."""
    path = tmp_path / "i.db"
    with Log(path) as writer:
        writer.begin(RunRecord("", engine="tiny.onnx", engine_sha256="a" * 64))
        writer.append(rows(0, 6))
    path.rename(tmp_path / "i.000001.db")
    with Log(path) as writer:
        writer.append(rows(6, 4, 1.5, "<camera>"))
    return path


def made(log: Path, *words: str, main=period.main) -> str:
    output = log.parent / "report.html"
    assert run_command(main, [*words, "--log", str(log), "--output", str(output), "--zone", "UTC"]) == 0
    return output.read_text(encoding="utf-8")


def test_a_day_counts_what_lies_in_all_files(log: Path):
    html = made(log, "--day", DAY)
    assert "<b>10</b>judged" in html and "<b>6</b>good" in html and "<b>4</b>anomalous" in html
    assert "&lt;camera&gt;" in html and "<camera>" not in html
    assert "2023-11-14 22:00 +0000" in html and "Marked by operators: false alarms 0, missed 0" in html
    assert html.count("<figure>") == 10 and "src=" not in html.replace('src="data:', "")


def test_cflow_report_writes_it_where_a_period_is_asked_for(log: Path):
    assert "<b>10</b>judged" in made(log, f"--day={DAY}", main=report.main)
    assert "<b>10</b>judged" in made(log, "--month", "2023-11", main=report.main)


def test_an_empty_period_says_so(log: Path):
    html = made(log, "--day", "2024-01-01")
    assert "Nothing was judged in this period" in html and "No check in this period" in html


@pytest.mark.parametrize(
    ("span", "hours"),
    [
        (day("2026-03-29", BERLIN), 23),
        (day("2026-10-25", BERLIN), 25),
        (day("2026-06-01", BERLIN), 24),
        (shift("2026-10-24 22:00..06:00", BERLIN), 9),
        (shift("2026-03-28T22:00..06:00", BERLIN), 7),
        (shift("2026-06-01 06:00..14:00", BERLIN), 8),
        (month("2026-02", BERLIN), 28 * 24),
        (month("2026-12", BERLIN), 31 * 24),
        (month("2026-10", BERLIN), 31 * 24 + 1),
    ],
)
def test_periods_follow_the_clock_on_the_wall(span, hours: float):
    assert span.until_s - span.since_s == hours * 3600


def test_a_shift_begins_when_the_zone_says():
    since_s = shift("2026-11-28 22:00..06:00", BERLIN).since_s
    assert datetime.fromtimestamp(since_s, timezone.utc).isoformat() == "2026-11-28T21:00:00+00:00"


def test_the_hour_that_comes_twice_is_shown_twice():
    span = day("2026-10-25", BERLIN)
    assert len({span.bucket(span.since_s + 1800 + 3600 * hour) for hour in range(25)}) == 25


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--day", "tomorrow"], "--day must be a date"),
        (["--month", "2026-13"], "--month must be a month"),
        (["--shift", "2026-11-28 25:00..06:00"], "--shift must be"),
        (["--day", DAY, "--zone", "Mars/Base"], "--zone must be a time zone"),
    ],
)
def test_what_is_no_period_is_one_line(log: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str):
    assert run_command(period.main, [*words, "--log", str(log), "--output", str(log.parent / "r.html")]) == 2
    assert said in capsys.readouterr().err and not (log.parent / "r.html").exists()


def test_the_latest_mark_of_a_judgement_counts(log: Path):
    with Log(log) as writer:
        for number, kind in [(7, FALSE_ALARM), (8, FALSE_ALARM), (8, WITHDRAWN), (1, MISSED), (999, MISSED)]:
            writer.mark(Mark({"id": number, "verdict": CORRECTS.get(kind, "")}, kind, who="Ana"))
    assert "Marked by operators: false alarms 1, missed 1" in made(log, "--day", DAY)


def test_a_log_of_a_release_without_marks_says_that_false_alarms_are_not_known(log: Path):
    for file in log.parent.glob("*.db"):
        with closing(sqlite3.connect(file)) as connection:
            connection.execute("DROP TABLE marks")
            connection.commit()
    assert "the log has no marks of operators" in made(log, "--day", DAY)


def test_answers_late_ones_and_their_times(log: Path):
    with Log(log) as writer:
        for index in range(100):
            one = judgement(index)
            one = replace(one, trigger=Trigger("P", one.judged_s - 0.001 * (index + 1), "http"), late=index < 3)
            writer.append([row_of(one)])
    html = made(log, "--day", DAY)
    assert "<b>3</b>late" in html and "<b>50 ms</b>answer, median" in html and "<b>99 ms</b>answer, 99 %" in html


def test_checks_and_changes_are_in_it_and_bounded(log: Path):
    part = {"name": "bad/b<1>", "expected": "anomalous", "verdict": "good", "recorded": 2.0, "score": 0.1, "why": "<w>"}
    check = Check("", "a" * 64, "", False, (part,), "Ana", "files", TIME_S)
    for _ in range(3):
        add_check(log, check)
    html = made(log, "--day", DAY)
    assert html.count("failed, 1 of 1 parts</span>") == 3 and "bad/b&lt;1&gt;: &lt;w&gt;" in html
    assert html.count("<td>check</td>") == 3  # the audit's
    with Log(log) as writer:
        writer.append(rows(10, 2 * WORST))
        for number in range(MOST_ROWS + 5):
            writer.note({"threshold": str(number)}, "Ana", "page")
    today = datetime.now(timezone.utc).strftime("%Y-%m-%d")
    facts = gather(log, day(today, timezone.utc))
    assert len(facts.changes) == MOST_ROWS and facts.more_changes >= 4
    assert len(gather(log, day(DAY, timezone.utc)).worst) == WORST


def test_the_worst_come_with_their_pictures(tmp_path: Path):
    for name, level in {"a": DARK, "b": BRIGHT, "c": BRIGHT - 50}.items():
        picture(tmp_path / "images" / f"{name}.png", level)
    log, engine = tmp_path / "i.db", write_tiny_engine(tmp_path)
    words = ["--engine", engine, "--source", tmp_path / "images", "--log", log, "--output", tmp_path / "out"]
    assert run_command(infer.main, [str(word) for word in [*words, "--backend", "onnxruntime"]]) == 0
    html = made(log, "--day", datetime.now(timezone.utc).strftime("%Y-%m-%d"))
    assert html.count('src="data:image/jpeg') == 3
    assert re.findall(r"(\w)\.png, \w+<br>", html) == ["b", "c", "a"]
    for overlay in (tmp_path / "out" / "overlays").iterdir():
        overlay.unlink()
    assert "no picture kept" in made(log, "--day", datetime.now(timezone.utc).strftime("%Y-%m-%d"))


def test_drifts_are_in_it_with_who_acknowledged_them_and_are_no_changes(log: Path):
    what = "light, from 131.2 to 124.8 grey levels, since 2023-11-14 08:41"
    with Log(log) as writer:
        writer.enter("drift of camera:0", "", what, "drift watch", "frames of camera:0")
        writer.enter("drift of camera:0", what, "acknowledged", "Ann <page>", "10.0.0.5")
        writer.enter(
            "drift of b (plug)", "", "focus, from 1 to 2, since 2023-11-14 09:00", "drift watch", "frames of b"
        )
        writer.enter("drift of b (plug)", "focus, ...", "taken for the new normal", "Bo", "10.0.0.5")
        writer.enter("drift of c", "colour, of a log of before", "", "drift watch", "values came back")
    today = datetime.now(timezone.utc).strftime("%Y-%m-%d")
    html = made(log, "--day", today)
    section = html[html.index("<h2>Drift</h2>") : html.index("<h2>Changes</h2>")]
    assert what in section and "Ann &lt;page&gt;, 2" in section and "stands" in section
    assert "taken for the new normal by Bo" in section and "before this log" in section
    assert "drift" not in html[html.index("<h2>Changes</h2>") :]
    assert "No drift in this period" in made(log, "--day", "2023-11-13")


def test_a_drift_that_stands_is_in_every_later_period(log: Path):
    with Log(log) as writer:
        writer.enter("drift of a", "", "light, ...", "drift watch", "")
        writer.enter("drift of b", "", "light, ...", "drift watch", "")
        writer.enter("drift of b", "light, ...", "", "drift watch", "")
    assert [one.where for one in gather(log, month("2999-01", BERLIN)).drifts] == ["a"]
