"""A line that goes by checks: no verdict without one that passed, is of this engine and recipe, and young enough."""

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from runtime import check, infer
from runtime.checks.gate import Gate, limits_of
from runtime.common.errors import run_command
from runtime.recipes.book import Recipes
from runtime.recipes.recipe import Recipe
from runtime.records import schema
from runtime.records.checks import Check, add_check, newest_checks
from runtime.records.database import open_to_write
from runtime.records.log import Log
from runtime.records.read import Query, judgements
from tests.runtime.checks.test_check import DARK, parts, picture
from tests.support.log_rows import asked, rows
from tests.support.recipes import opened, several, write_recipes
from tests.support.tiny_engine import write_tiny_engine

HOUR_S = 3600.0


def passed(recipe: Recipe, time_s: float | None = None, good: float = 0.5, bad: float = 2.0) -> Check:
    parts_ = [
        {"name": "g", "expected": "good", "verdict": "good", "recorded": good, "score": good, "why": ""},
        {"name": "b", "expected": "anomalous", "verdict": "anomalous", "recorded": bad, "score": bad, "why": ""},
    ]
    at_s = time.time() if time_s is None else time_s
    return Check(recipe.name, recipe.engine_sha256, limits_of(recipe), True, tuple(parts_), "Ana", "files", at_s)


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Recipes]:
    with opened(tmp_path) as recipes:
        yield recipes


@pytest.fixture
def log(tmp_path: Path) -> Path:
    open_to_write(tmp_path / "i.db").close()
    return tmp_path / "i.db"


def reasons(log: Path, recipes: Recipes, every_s: float = 8 * HOUR_S) -> list[str]:
    with Gate(log, recipes, every_s) as gate:
        return [gate.withheld(recipe) for recipe in recipes.all]


def test_without_a_check_no_recipe_judges(log: Path, two: Recipes):
    assert all("no check of reference parts yet; run cflow check" in reason for reason in reasons(log, two))


def test_a_check_holds_for_its_own_recipe_only(log: Path, two: Recipes):
    add_check(log, passed(two["high"]))
    low, high = reasons(log, two)
    assert "no check" in low and high == ""


def test_a_failed_check_ends_an_older_one_that_passed(log: Path, two: Recipes):
    add_check(log, passed(two["low"]))
    failed = passed(two["low"])
    add_check(log, replace(failed, passed=False, parts=(failed.parts[0], {**failed.parts[1], "why": "good"})))
    assert "failed, 1 of 2 parts" in reasons(log, two)[0]


def test_a_check_of_another_engine_does_not_count(log: Path, two: Recipes):
    add_check(log, replace(passed(two["low"]), engine_sha256="0" * 64))
    assert "another engine or threshold" in reasons(log, two)[0]


@pytest.mark.parametrize(("threshold", "holds"), [(1.5, True), (0.4, False), (2.5, False)])
def test_a_moved_threshold_must_still_part_the_parts(log: Path, two: Recipes, threshold: float, holds: bool):
    add_check(log, passed(two["low"]))
    detector = two["low"].first.detector
    detector.use(replace(detector.sidecar.threshold, value=threshold))
    assert (reasons(log, two)[0] == "") is holds


def test_an_old_check_ends_and_a_reminder_comes_before(log: Path, two: Recipes, capsys: pytest.CaptureFixture[str]):
    now_s = time.time()
    add_check(log, passed(two["low"], now_s - 8 * HOUR_S - 1))
    add_check(log, passed(two["high"], now_s - 8 * HOUR_S + 600))
    low, high = reasons(log, two)
    assert "too old" in low and high == ""
    said = capsys.readouterr().err
    assert "recipe high: a check of reference parts is due in 10 min" in said and said.count("due in") == 1


def test_a_clock_set_back_makes_no_check_younger(log: Path, two: Recipes):
    at_s = time.time() - 2 * HOUR_S
    add_check(log, passed(two["low"], at_s))
    with Log(log) as writer:  # judged for nine hours since; then the clock was set back by seven
        late = [list(row) for row in rows(0, 1)]
        late[0][6] = at_s + 9 * HOUR_S
        writer.append(late)
    assert "too old" in reasons(log, two)[0]
    add_check(log, passed(two["low"]))  # made after that: what was judged before says nothing about its age
    assert reasons(log, two)[0] == ""


def test_a_check_of_a_time_to_come_does_not_count(log: Path, two: Recipes):
    add_check(log, passed(two["low"], time.time() + HOUR_S))
    assert "the clock was set back" in reasons(log, two)[0]


def test_a_clock_set_back_while_the_line_runs_makes_no_check_younger(
    log: Path, two: Recipes, monkeypatch: pytest.MonkeyPatch
):
    add_check(log, passed(two["low"]))
    with Gate(log, two, HOUR_S) as gate:
        real, steady = time.time, time.monotonic
        monkeypatch.setattr(time, "monotonic", lambda: steady() + 2 * HOUR_S)
        monkeypatch.setattr(time, "time", lambda: real() - 30)
        assert "too old" in gate.withheld(two["low"])


def test_the_newest_check_of_each_recipe_goes_into_the_next_file(log: Path, two: Recipes):
    for time_s in (1.0, 2.0, time.time()):
        add_check(log, passed(two["low"], time_s))
    log.rename(log.with_name("i.000001.db"))
    Log(log).close()
    assert asked(log, "SELECT id FROM checks") == [(3,)]
    assert reasons(log, two)[0] == ""
    add_check(log, passed(two["low"]))
    assert [check.id for check, _ in newest_checks(log)] == [4]


def test_a_log_of_an_older_release_has_no_check_and_takes_one(
    tmp_path: Path, two: Recipes, monkeypatch: pytest.MonkeyPatch
):
    older = tmp_path / "older.db"
    with monkeypatch.context() as before:
        before.setattr(schema, "MIGRATIONS", schema.MIGRATIONS[:2])
        open_to_write(older).close()
    assert newest_checks(older) == []
    add_check(older, passed(two["low"]))
    assert [check.passed for check, _ in newest_checks(older)] == [True]


def test_a_line_takes_a_check_without_a_restart(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """The whole of it: a watched folder, no check, then `cflow check` beside the line, then a verdict."""
    engine, folder, log = write_tiny_engine(tmp_path), parts(tmp_path / "parts"), tmp_path / "i.db"
    words = ["--golden", folder, "--engine", engine, "--log", log, "--backend", "onnxruntime"]
    common = [str(word) for word in words]
    assert run_command(check.main, [*common, "--record"]) == 0
    watched = tmp_path / "watched"
    picture(watched / "a.png", DARK)
    line = ["--engine", engine, "--watch", watched, "--limit", 2, "--log", log, "--check-every", "8h", "--settle", 0]

    def meanwhile() -> None:
        while not any(judgements(log, Query())):
            time.sleep(0.05)
        assert run_command(check.main, common) == 0
        time.sleep(1.5)  # the gate looks every second
        picture(watched / "b.png", DARK)

    helper = threading.Thread(target=meanwhile)
    helper.start()
    status = run_command(infer.main, [str(word) for word in [*line, "--backend", "onnxruntime"]])
    helper.join()
    first, second = judgements(log, Query(), newest_first=False)
    assert first["verdict"] == "none" and first["reason"].startswith("no check of reference parts yet")
    assert first["score"] is not None  # what the engine said is kept
    assert second["verdict"] == "good" and status == 1
    assert "check passed, verdicts go on" in capsys.readouterr().err
    assert json.loads(asked(log, "SELECT options FROM runs")[0][0])["check_every"] == 8 * HOUR_S


def test_parts_of_a_recipe_with_several_entries_have_no_verdict_either(tmp_path: Path):
    path, log = write_recipes(tmp_path, several("pair")), tmp_path / "i.db"
    picture(tmp_path / "images" / "a.png", DARK)
    line = ["--recipes", path, "--source", tmp_path / "images", "--log", log, "--check-every", "1d"]
    run_command(infer.main, [str(word) for word in [*line, "--backend", "onnxruntime"]])
    [record] = judgements(log, Query())
    assert record["verdict"] == "none"
    assert [part["verdict"] for part in json.loads(record["parts"])] == ["none", "none"]
