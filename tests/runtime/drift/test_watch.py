"""The watch of an inspection: sources, recipes and engines apart, over restarts, with its alarms in the audit."""

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import runtime
from runtime.common.errors import UserError
from runtime.drift import watch as drift_watch
from runtime.drift.numbers import numbers_of
from runtime.drift.store import beside
from runtime.drift.watch import DriftOptions, DriftWatch, NoAlarm
from runtime.engines.sidecar import Threshold
from runtime.images.population import Population
from runtime.images.view import View, ViewOptions
from runtime.recipes.book import Recipes
from runtime.recipes.recipe import Recipe
from runtime.records.log import Log
from runtime.records.read import audit
from runtime.sinks.judgement import Judgement
from runtime.triggers.trigger import Trigger
from tests.support.judgements import judgement
from tests.support.recipes import TWO, opened, several
from tests.support.tiny_engine import write_tiny_engine

LIGHT, DARK = 90, 60
LEARNED, AFTER = 60, 20  # blocks


@pytest.fixture
def recipes(tmp_path: Path) -> Iterator[Recipes]:
    engine = write_tiny_engine(tmp_path)
    with runtime.load(engine, threads=1) as detector:
        yield Recipes([Recipe.plain(detector, engine)])


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.drift.source.BLOCK", 2)


class Camera:
    """Gives a watch judgements of grey frames, ten seconds apart."""

    def __init__(self, watch: DriftWatch, recipes: Recipes, source: str = "a", first: int = 0) -> None:
        self.watch, self.recipes, self.source, self.number = watch, recipes, source, first

    def give(self, blocks: float, level: int, recipe: str = "", **changed: object) -> "Camera":
        for _ in range(round(2 * blocks)):
            self.watch.offer(self.one(level, recipe, **changed))
            self.number += 1
            self.watch.settle()  # nothing is lost to a full queue here
        return self

    def one(self, level: int, recipe: str = "", **changed: object) -> Judgement:
        one = judgement(self.number, source=self.source, size=(32, 48))
        image = np.full_like(one.frame.image, level) + (one.frame.image >> 4)
        frame = replace(one.frame, image=image, monotonic_s=10.0 * self.number, captured_s=10.0 * self.number)
        sha256 = self.recipes[recipe].engine_sha256
        return replace(one, frame=frame, recipe=recipe, engine_sha256=sha256, **changed)


@contextlib.contextmanager
def watching(
    recipes: Recipes, live: str = "a", state: Path | None = None, log: Log | None = None
) -> Iterator[tuple[DriftWatch, list[str]]]:
    told: list[str] = []
    enter = None if log is None else log.enter
    with DriftWatch(set(live), recipes, DriftOptions(state=state), enter, told.append) as watch:
        yield watch, told


def _drifted(watch: DriftWatch, recipes: Recipes, source: str = "a") -> Camera:
    return Camera(watch, recipes, source).give(LEARNED, LIGHT).give(AFTER, DARK)


def test_sources_are_apart_and_files_are_not_watched(recipes: Recipes):
    with watching(recipes, "ab") as (watch, told):
        _drifted(watch, recipes, "a")
        Camera(watch, recipes, "b").give(LEARNED + AFTER, LIGHT)
        _drifted(watch, recipes, "f")
        assert [(alarm.source, alarm.cause) for alarm in watch.alarms()] == [("a", "light")]
        assert {state["source"] for state in watch.states()} == {"a", "b"}
    assert sum("drift of light, from " in text for text in told) >= 1 and not [t for t in told if t.startswith("f")]


def test_frames_without_a_verdict_and_frames_too_soon_do_not_count(recipes: Recipes):
    with watching(recipes) as (watch, told):
        camera = Camera(watch, recipes).give(LEARNED, LIGHT)
        for _ in range(100):
            one = camera.one(0)
            watch.offer(replace(one, result=one.result.without_verdict("black")))
            soon = replace(one.frame, monotonic_s=one.frame.monotonic_s - 9.5)  # half a second after the last
            watch.offer(replace(one, frame=soon))
            camera.number += 1
            camera.give(0.5, LIGHT)
        assert not watch.alarms() and not told and watch.states()[0]["learned"] == LEARNED + 50


def test_a_change_of_recipe_is_no_drift_and_each_has_its_own_state(tmp_path: Path):
    with opened(tmp_path) as recipes, watching(recipes) as (watch, told):
        camera = Camera(watch, recipes)
        for _ in range(LEARNED):
            camera.give(1, LIGHT, "low").give(1, DARK, "high")
        assert not told and len(watch.states()) == 2
        for _ in range(AFTER):
            camera.give(1, LIGHT, "low").give(1, LIGHT, "high")
        assert [(alarm.recipe, alarm.cause) for alarm in watch.alarms()] == [("high", "light")]
        assert "a (high): drift of light" in told[0]


def test_a_change_of_the_threshold_changes_nothing(recipes: Recipes):
    with watching(recipes) as (watch, told):
        camera = Camera(watch, recipes).give(LEARNED, LIGHT)
        recipes.in_force.first.detector.use(Threshold(2.0, "by hand"))
        camera.give(AFTER, LIGHT)
        assert not told and watch.states()[0]["learned"] == LEARNED + AFTER


def test_another_region_or_mask_is_no_drift_and_learns_anew(recipes: Recipes):
    with watching(recipes) as (watch, told):
        camera = Camera(watch, recipes).give(LEARNED, LIGHT)
        camera.give(AFTER, DARK, view=View(ViewOptions(roi=(0, 0, 48, 32))))
        assert watch.states()[0]["learned"] == AFTER and not watch.alarms()
        assert told == ["a: other numbers, another region, mask or way up: drift learns anew"]


def test_what_lies_outside_of_a_mask_moves_nothing(recipes: Recipes, tmp_path: Path):
    mask = np.zeros((32, 48), np.uint8)
    mask[:, :24] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    view = View(ViewOptions(mask=tmp_path / "mask.png"))
    with watching(recipes) as (watch, told):
        camera = Camera(watch, recipes)
        for number in range(2 * (LEARNED + AFTER)):
            one = camera.one(LIGHT)
            image = one.frame.image.copy()
            image[:, 26:] = 200 if number > 2 * LEARNED else 20
            watch.offer(replace(one, frame=replace(one.frame, image=view(image)), view=view))
            camera.number += 1
            watch.settle()
        assert not told and watch.states()[0]["learned"] == LEARNED + AFTER


def test_a_restart_forgets_neither_what_was_learned_nor_the_alarm(recipes: Recipes, tmp_path: Path):
    state = tmp_path / "i.drift.json"
    with watching(recipes, state=state) as (watch, _):
        Camera(watch, recipes).give(LEARNED, LIGHT)
    with watching(recipes, state=state) as (watch, told):
        assert watch.states()[0]["learned"] == LEARNED
        camera = Camera(watch, recipes, first=2 * LEARNED).give(AFTER, DARK)  # the light was moved in the night
        [alarm] = watch.alarms()
        assert alarm.cause == "light" and alarm.since_s >= 10.0 * 2 * LEARNED
        watch.acknowledge(alarm.number, False, "Ann", "here")
    with watching(recipes, state=state) as (watch, told):
        [again] = watch.alarms()
        assert (again.number, again.since_s, again.acknowledged_by) == (alarm.number, alarm.since_s, "Ann")
        assert told[0].endswith("(found before this start, acknowledged by Ann)")
        Camera(watch, recipes, first=camera.number).give(AFTER, LIGHT)
        assert not watch.alarms() and told[-1] == "a: light is back where it was"


def test_a_kill_costs_what_came_since_the_last_save_and_no_alarm(recipes: Recipes, tmp_path: Path):
    state = tmp_path / "i.drift.json"
    with watching(recipes, state=state) as (watch, _):
        _drifted(watch, recipes)
        kept = state.read_bytes()  # as a kill -9 would leave it
    state.write_bytes(kept)
    with watching(recipes, state=state) as (watch, _):
        assert [alarm.cause for alarm in watch.alarms()] == ["light"]


def test_a_promoted_engine_has_a_state_of_its_own_and_the_one_put_back_finds_its_again(
    recipes: Recipes, tmp_path: Path
):
    state, first, engine = tmp_path / "i.drift.json", recipes.in_force, write_tiny_engine(tmp_path, "next", (24, 32))
    with runtime.load(engine, threads=1) as detector:
        promoted = replace(Recipe.plain(detector, engine), run="second")
        with watching(recipes, state=state) as (watch, _):
            camera = Camera(watch, recipes).give(LEARNED, LIGHT)
            under_way = camera.one(LIGHT)
            assert not recipes.replace(promoted, lambda: None)
            watch.offer(under_way)  # of the engine that has gone, and is not measured as one of the next
            watch.settle()
            camera.number += 1
            camera.give(5, LIGHT)
            assert [one["learned"] for one in watch.states()] == [LEARNED, 5]
        with watching(recipes, state=state) as (watch, _):
            camera = Camera(watch, recipes, first=camera.number).give(5, LIGHT)
            assert [one["learned"] for one in watch.states()] == [10]
            assert not recipes.replace(replace(first, run="third"), lambda: None)
            camera.give(5, LIGHT)
            assert [one["learned"] for one in watch.states()] == [10, LEARNED + 5]


def test_states_of_other_engines_and_sources_are_kept(recipes: Recipes, tmp_path: Path):
    state = tmp_path / "i.drift.json"
    with watching(recipes, "b", state) as (watch, _):
        Camera(watch, recipes, "b").give(LEARNED, LIGHT)
    with watching(recipes, "a", state) as (watch, _):
        Camera(watch, recipes, "a").give(5, LIGHT)
        assert {one["source"] for one in watch.states()} == {"a"}
    with watching(recipes, "ab", state) as (watch, _):
        assert {one["source"]: one["learned"] for one in watch.states()} == {"b": LEARNED, "a": 5}


@pytest.mark.parametrize("damage", ["{", "[]", '{"schema": "cflow-edge/drift/1", "states": [{"source": "a"}]}'])
def test_a_damaged_state_is_put_aside_and_said(
    recipes: Recipes, tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
):
    state = tmp_path / "i.drift.json"
    state.write_text(damage)
    with watching(recipes, state=state) as (watch, _):
        Camera(watch, recipes).give(5, LIGHT)
    assert "drift begins to learn anew" in capsys.readouterr().err
    assert (tmp_path / "i.drift.json.damaged").read_text() == damage
    assert json.loads(state.read_text())["states"][0]["source"] == "a"


def test_a_disk_that_takes_nothing_is_said_and_the_watch_goes_on(
    recipes: Recipes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "file").write_text("")
    with watching(recipes, state=tmp_path / "file" / "i.drift.json") as (watch, _):
        _drifted(watch, recipes)
        assert watch.alarms()
    assert "a restart will forget what drift has learned" in capsys.readouterr().err


def test_the_audit_has_begin_acknowledgement_and_end_and_a_start_adds_nothing(recipes: Recipes, tmp_path: Path):
    path = tmp_path / "i.db"
    with Log(path) as log, watching(recipes, state=beside(path), log=log) as (watch, _):
        camera = _drifted(watch, recipes)
        number = watch.alarms()[0].number
        watch.acknowledge(number, False, "Ann, page", "10.0.0.5")
        camera.give(AFTER, LIGHT)
        with pytest.raises(NoAlarm):
            watch.acknowledge(number, True, "Ann, page", "10.0.0.5")
    with Log(path) as log, watching(recipes, state=beside(path), log=log):
        pass
    rows = [(row["what"], row["old"][:12], row["new"][:12], row["who"]) for row in audit(path)][::-1]
    assert rows[0] == ("drift of a", "", "light, from ", "drift watch")
    assert rows[-2] == ("drift of a", "light, from ", "acknowledged", "Ann, page")
    assert rows[-1] == ("drift of a", "light, from ", "", "drift watch")


def test_the_new_normal_is_in_the_audit_and_survives(recipes: Recipes, tmp_path: Path):
    path = tmp_path / "i.db"
    with Log(path) as log, watching(recipes, state=beside(path), log=log) as (watch, _):
        camera = _drifted(watch, recipes)
        watch.acknowledge(watch.alarms()[0].number, True, "Ann", "page")
        assert not watch.alarms()
    assert next(audit(path))["new"] == "taken for the new normal"
    with watching(recipes, state=beside(path)) as (watch, told):
        Camera(watch, recipes, first=camera.number).give(LEARNED, DARK)
        assert not watch.alarms() and not told


def test_an_audit_that_cannot_be_written_is_said_and_the_alarm_stands(recipes: Recipes):
    def refuse(*_: str) -> None:
        raise UserError("the log must be writable", "a full disk")

    told: list[str] = []
    with DriftWatch({"a"}, recipes, enter=refuse, tell=told.append) as watch:
        _drifted(watch, recipes)
        assert watch.alarms() and "the audit has no entry of the drift of a: " in told[1]


def test_the_inspection_waits_for_nothing(recipes: Recipes, monkeypatch: pytest.MonkeyPatch):
    go = threading.Event()
    measure = drift_watch.numbers_of
    monkeypatch.setattr(drift_watch, "numbers_of", lambda *of: (go.wait(30), measure(*of))[1])
    with watching(recipes) as (watch, _):
        camera = Camera(watch, recipes)
        for number in range(100):  # while the first hangs
            camera.number = number
            watch.offer(camera.one(LIGHT))
        go.set()
    assert watch._delivery.counts().lost > 50


def test_measuring_takes_no_more_than_its_share_of_a_core(recipes: Recipes, monkeypatch: pytest.MonkeyPatch):
    measure = drift_watch.numbers_of

    def costly(*of: object) -> dict[str, float]:
        began_s = time.thread_time()
        while time.thread_time() - began_s < 0.06:
            pass
        return measure(*of)

    monkeypatch.setattr(drift_watch, "numbers_of", costly)
    with watching(recipes, "ab") as (watch, _):  # two sources, 60 ms each: one in 12 s
        Camera(watch, recipes).give(20, LIGHT)  # 40 frames, one in 10 s
        assert watch.states()[0]["learned"] == 10  # blocks of two


def test_several_detectors_on_one_frame_are_one_drift(tmp_path: Path):
    with opened(tmp_path, TWO + several("both")) as recipes, watching(recipes) as (watch, _):
        Camera(watch, recipes).give(LEARNED, LIGHT, "both").give(AFTER, DARK, "both")
        assert [(alarm.recipe, alarm.cause) for alarm in watch.alarms()] == [("both", "light")]


def test_triggered_parts_count_as_they_come_and_late_ones_do_not(recipes: Recipes):
    with watching(recipes) as (watch, _):
        camera = Camera(watch, recipes)
        for _ in range(40):
            one = replace(camera.one(LIGHT), trigger=Trigger("SN", 10.0 * camera.number, "http"))
            watch.offer(one)
            watch.settle()
            camera.number += 1
            watch.offer(replace(one.too_late(10.0 * camera.number), frame=camera.one(LIGHT).frame))
            camera.number += 1
        assert watch.states()[0]["learned"] == 20


def test_an_engine_that_resizes_itself_is_held_to_the_same_reference(recipes: Recipes):
    random, detector = np.random.default_rng(0), recipes.in_force.first.detector
    frames = [
        np.asarray(Image.fromarray(random.integers(0, 255, (8, 12, 3), np.uint8)).resize((96, 64))) for _ in range(20)
    ]
    population = Population.of([{**numbers_of(frame, (32, 48)), "score": 0.5} for frame in frames], {})
    detector.sidecar = replace(detector.sidecar, frame_size=(64, 96), population=population)
    with watching(recipes) as (watch, told):
        camera = Camera(watch, recipes)
        for number in range(200):
            one = camera.one(LIGHT)
            watch.offer(replace(one, frame=replace(one.frame, image=frames[number % 20])))
            watch.settle()
            camera.number += 1
        assert max(watch.states()[0]["indices"].values()) < 0.1 and not told


def test_a_restart_with_a_mask_is_not_held_to_training(recipes: Recipes, tmp_path: Path):
    state, detector = tmp_path / "i.drift.json", recipes.in_force.first.detector
    rows = [{**numbers_of(np.full((32, 48, 3), 200, np.uint8), (32, 48)), "score": 0.5}]
    detector.sidecar = replace(detector.sidecar, population=Population.of(rows, {}))
    Image.fromarray(np.pad(np.full((16, 24), 255, np.uint8), ((8, 8), (12, 12)))).save(tmp_path / "mask.png")
    view = View(ViewOptions(mask=tmp_path / "mask.png"))
    view(np.zeros((32, 48, 3), np.uint8))
    for _ in range(2):
        with watching(recipes, state=state) as (watch, _):
            Camera(watch, recipes).give(60, LIGHT, view=view)
            assert watch.states()[0]["indices"] == {}
    with watching(recipes) as (watch, _):
        Camera(watch, recipes).give(60, LIGHT)
        assert watch.states()[0]["indices"]["light"] > 1


def test_an_engine_of_before_has_no_reference_and_is_watched_all_the_same(recipes: Recipes):
    with watching(recipes) as (watch, _):
        _drifted(watch, recipes)
        assert watch.alarms() and watch.states()[0]["indices"] == {}
