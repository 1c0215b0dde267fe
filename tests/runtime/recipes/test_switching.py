"""The recipe in force changes between frames, and between parts, and never within one."""

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from runtime.common.errors import UserError
from runtime.inspection import InspectionOptions
from runtime.recipes.book import Recipes
from runtime.records.log import Log
from runtime.records.read import audit
from runtime.serve.changes import Changes
from runtime.sinks.json_lines import as_json
from runtime.sources.settings import CameraSettings
from runtime.triggers.options import DecideOptions, TriggerOptions
from runtime.triggers.orders import CHANGING, Orders
from tests.support.controlled_source import ControlledSource
from tests.support.recipes import TWO, opened
from tests.support.triggered_run import Switching
from tests.support.triggered_sources import OnDemand
from tests.support.waiting import wait_until

LONG = TriggerOptions(deadline_s=60.0, queue=500, skip=0)
BETWEEN = 128  # a grey level that is anomalous by "low" and good by "high"


@pytest.fixture
def recipes(tmp_path: Path):
    with opened(tmp_path) as found:
        yield found


@pytest.fixture
def of_two(tmp_path: Path):
    """Recipes for two sources."""
    with opened(tmp_path, TWO, "--source", str(tmp_path)) as found:
        yield found


def test_the_next_frame_is_judged_by_the_other_recipe(recipes: Recipes):
    camera = ControlledSource("cam", True, BETWEEN)
    with Switching([camera], recipes) as running:
        running.wait(1)
        assert recipes.use("high", "me", "test") == ""
        camera.put(BETWEEN)
        running.wait(2)
        assert recipes.use("low", "me", "test") == ""
        camera.put(BETWEEN)
        running.wait(3)
    assert running.of() == [("low", "anomalous", 1.0), ("high", "good", 2.0), ("low", "anomalous", 1.0)]
    for one, recipe in zip(running.kept.judgements, ("low", "high", "low"), strict=True):
        hashes = recipes[recipe].first.detector.hashes
        line = as_json(one)
        assert (line["recipe"], line["engine_sha256"], line["sidecar_sha256"]) == (
            recipe,
            hashes.engine,
            hashes.sidecar,
        )


def test_an_unknown_recipe_is_refused_and_the_old_one_stays(recipes: Recipes):
    refusal = recipes.use("medium", "me", "test")
    assert refusal == "there is no recipe of that name: expected low, high, found 'medium'"
    assert recipes.name_in_force() == "low" and recipes.use("", "me", "test")
    recipes.refuses = "the inspection has not begun"
    assert recipes.use("high", "me", "test") == recipes.refuses and recipes.name_in_force() == "low"


def test_a_part_is_judged_by_the_recipe_of_its_trigger_on_all_its_cameras(of_two: Recipes):
    """The recipe changes a thousand times while two cameras answer parts: no part has two recipes, or another's."""
    recipes, cameras = of_two, [OnDemand("a", 0.001), OnDemand("b", 0.003)]
    expected = {}
    with Switching(cameras, recipes, Orders(LONG)) as running:
        for number in range(150):
            name = ("low", "high")[number % 2]
            assert recipes.use(name, "me", "test") == ""
            assert running.ask(f"SN{number}") == ""
            expected[f"SN{number}"] = name
        running.wait(300)
    given = {}
    for one in running.kept.judgements:
        given.setdefault(one.trigger.part, set()).add((one.recipe, one.result.threshold, one.result.verdict != "none"))
    limits = {"low": 1.0, "high": 2.0}
    assert given == {part: {(name, limits[name], True)} for part, name in expected.items()}


def test_a_late_part_is_of_the_recipe_of_its_trigger(recipes: Recipes):
    camera = OnDemand("a")
    camera.deaf = {1}
    with Switching([camera], recipes, Orders(replace(LONG, deadline_s=0.2))) as running:
        assert running.ask("SN1") == ""
        assert recipes.use("high", "me", "test") == ""
        running.wait(1)
    [late] = running.kept.judgements
    assert (late.recipe, late.result.threshold, late.late, late.result.verdict) == ("low", 1.0, True, "none")


def test_cameras_in_one_execution_are_parted_by_recipe(of_two: Recipes):
    recipes, cameras = of_two, [ControlledSource(name, True) for name in "ab"]
    with Switching(cameras, recipes, Orders(LONG), InspectionOptions(batch_cameras=True)) as running:
        assert running.ask("SN1", "a") == "" and recipes.use("high", "me", "test") == ""
        assert running.ask("SN2", "b") == ""
        for camera in cameras:
            camera.put(BETWEEN)
        running.wait(2)
    assert {one.source: one.recipe for one in running.kept.judgements} == {"a": "low", "b": "high"}
    assert {one.result.verdict for one in running.kept.judgements} == {"anomalous", "good"}


def test_a_decision_begins_anew_with_another_recipe(recipes: Recipes):
    camera = ControlledSource("cam", False, BETWEEN, BETWEEN)
    with Switching([camera], recipes, options=InspectionOptions(decide=DecideOptions(1, 2))) as running:
        running.wait(2)
        recipes.use("high", "me", "test")
        camera.put(BETWEEN, BETWEEN)
        running.wait(4)
    assert [one.decision for one in running.kept.judgements] == ["anomalous", "anomalous", "none", "good"]


class Settable(OnDemand):
    """A camera that is told to take pictures, and whose pictures have the exposure as their grey level."""

    adjustable = True

    def __init__(self, name, lag_s=0.0, refuses=()):
        super().__init__(name, lag_s)
        self.exposure, self.refuses, self.asked = 10, refuses, []

    def adjust(self, settings):
        self.asked.append(settings.exposure_ms)
        if settings.exposure_ms in self.refuses:
            raise UserError(f"{self.name} must take {settings.exposure_ms:g}", "it does not")
        self.exposure = int(settings.exposure_ms)

    def reopen(self, why):
        raise AssertionError(why)

    def __iter__(self):
        for frame in super().__iter__():
            yield replace(frame, image=np.full_like(frame.image, self.exposure))


def _exposed(recipes: Recipes) -> Recipes:
    cameras = {"low": 10.0, "high": 200.0}
    of = [replace(recipe, camera=CameraSettings(cameras[recipe.name])) for recipe in recipes.all]
    return Recipes(of, "low")


def test_a_part_that_waits_gets_its_picture_before_the_camera_is_set(recipes: Recipes):
    camera, exposed = Settable("a", lag_s=0.02), _exposed(recipes)
    with Switching([camera], exposed, Orders(LONG)) as running:
        for number in range(20):
            name = ("high", "low")[number % 2]
            for part in "xy":
                assert running.ask(f"SN{number}{part}") == ""
            assert exposed.use(name, "me", "test") == ""
        running.wait(40)
    level = {"low": 10, "high": 200}
    assert {level[one.recipe] - int(one.frame.image[0, 0, 0]) for one in running.kept.judgements} == {0}


def test_triggers_are_refused_while_cameras_are_set_and_taken_again_after_it(recipes: Recipes):
    class Slow(Settable):
        def adjust(self, settings):
            began.set()
            go.wait(120)
            super().adjust(settings)

    began, go = threading.Event(), threading.Event()
    exposed = _exposed(recipes)
    with Switching([Slow("a")], exposed, Orders(LONG)) as running:
        changing = threading.Thread(target=exposed.use, args=("high", "me", "test"))
        changing.start()
        assert began.wait(120)
        assert running.ask("SN1") == CHANGING and exposed.name_in_force() == "low"
        go.set()
        changing.join(120)
        assert running.ask("SN2") == ""
        running.wait(1)
    assert running.of() == [("high", "anomalous", 2.0)]


def test_a_camera_that_refuses_leaves_all_as_it_was(of_two: Recipes):
    exposed = _exposed(of_two)
    first, second = Settable("a"), Settable("b", refuses={200.0})
    with Switching([first, second], exposed, Orders(LONG)) as running:
        refusal = exposed.use("high", "me", "test")
        assert (
            refusal == "the recipe stays low: b must take 200; found it does not" and exposed.name_in_force() == "low"
        )
        assert first.asked == [200.0, 10.0] and first.exposure == second.exposure == 10
        assert running.ask("SN1") == ""
        running.wait(2)
    assert {one[0] for one in running.of()} == {"low"}


def test_frames_on_their_way_while_a_free_camera_is_set_are_dropped_and_counted(recipes: Recipes):
    class Free(ControlledSource):
        adjustable = True

        def adjust(self, settings):
            self.put(11, 12)
            wait_until(lambda: self.asked == before + 2)

        def reopen(self, why):
            raise AssertionError(why)

    camera, exposed = Free("cam", True, 1), _exposed(recipes)
    with Switching([camera], exposed) as running:
        running.wait(1)
        wait_until(lambda: camera.asked == 2)
        before = camera.asked
        assert exposed.use("high", "me", "test") == ""
        camera.put(13, 14, 15, 16)
        running.wait(2)
        assert running.inspection.dropped() == {"cam": 5}
    assert [int(one.frame.image[0, 0, 0]) for one in running.kept.judgements] == [1, 16]


def test_a_change_of_recipe_is_in_the_audit_with_all_that_it_changes(tmp_path: Path):
    with opened(tmp_path, TWO + 'roi = "0,0,8,8"\n') as recipes, Log(tmp_path / "i.db") as log:
        log.note({"recipe": "low", "threshold": "1", "roi": ""}, "x", "y")
        recipes.told.append(Changes(log, lambda error: pytest.fail(str(error))).recipe)
        assert recipes.use("high", "page, signed in with the token", "10.0.0.7") == ""
        assert recipes.use("high", "page, signed in with the token", "10.0.0.7") == ""  # nothing changes
        assert recipes.use("low", "controller (Modbus)", "modbus") == ""
    changes = [(row["what"], row["old"], row["new"], row["who"]) for row in audit(tmp_path / "i.db")]
    assert ("recipe", "low", "high", "page, signed in with the token") in changes
    assert ("recipe", "high", "low", "controller (Modbus)") in changes
    assert ("threshold", "1", "2", "page, signed in with the token") in changes
    assert [row for row in changes if row[0] == "roi"] == [
        ("roi", "0,0,8,8", "", "controller (Modbus)"),
        ("roi", "", "0,0,8,8", "page, signed in with the token"),
    ]
