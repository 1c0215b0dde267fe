"""A GenICam camera has the settings of the recipe that judges, also where it is lost while the recipe changes."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runtime.common.errors import UserError
from runtime.inspection import Inspection, InspectionOptions
from runtime.recipes.book import Recipes
from runtime.sources.camera import CameraRequest
from runtime.sources.genicam.camera import genicam_origin
from runtime.sources.genicam.capture import GenicamCapture
from runtime.sources.live import Live, LiveOptions
from runtime.sources.settings import CameraSettings
from runtime.triggers.orders import Orders
from tests.support.genicam import FAST, gv_camera, needs_aravis, needs_gv_camera, opened, within_the_process
from tests.support.recipes import opened as opened_recipes
from tests.support.triggered_run import LONG, Kept, Started
from tests.support.waiting import wait_until

DARK_MS, BRIGHT_MS = 1.0, 10.0  # the fake camera's pictures are black by the one, and a pattern by the other
REQUEST = CameraRequest((64, 48), 50, DARK_MS)

pytestmark = needs_aravis


def _exposure_ms(source: Live) -> float:
    assert source._reader is not None and source._reader._capture is not None
    return float(source._reader._capture._camera.get_exposure_time() / 1e3)


@contextmanager
def _running(folder: Path, source: Live, orders: Orders | None = None) -> Iterator[tuple[Recipes, Started]]:
    """Judge frames of `source` by a recipe for dark pictures, or one for bright ones."""
    with opened_recipes(folder) as recipes:
        set_to = {"low": CameraSettings(DARK_MS), "high": CameraSettings(BRIGHT_MS)}
        exposed = Recipes([replace(one, camera=set_to[one.name]) for one in recipes.all], "low")
        exposed.try_cameras([source])
        options, kept = InspectionOptions(frozen_after_s=0), Kept()
        inspection = Inspection(
            [source], exposed.in_force.first.detector, [kept], options, orders=orders, recipes=exposed
        )
        running = Started(inspection, kept, orders)
        try:
            yield exposed, running
        finally:
            running.stop()
        pictures = {
            (one.recipe, one.frame.image.mean() > 20) for one in kept.judgements if one.result.verdict != "none"
        }
        assert pictures <= {("low", False), ("high", True)}


def test_a_camera_that_has_just_been_opened_is_set_too():
    for _ in range(20):
        with opened(within_the_process(), REQUEST) as source:
            source.adjust(CameraSettings(BRIGHT_MS))
            assert _exposure_ms(source) == BRIGHT_MS


def test_a_camera_is_set_to_what_is_asked_for_while_it_is_being_opened():
    origin = genicam_origin(within_the_process(), REQUEST, lambda line: None)
    opened_as_before, go = threading.Event(), threading.Event()

    def slowly() -> GenicamCapture:
        capture: GenicamCapture = origin.open()
        opened_as_before.set()
        assert go.wait(120)
        return capture

    with Live(replace(origin, open=slowly), LiveOptions(FAST, wait=True, say=lambda line: None)) as source:
        assert opened_as_before.wait(30)
        source.adjust(CameraSettings(BRIGHT_MS))
        go.set()
        assert next(iter(source)).image.mean() > 20 and _exposure_ms(source) == BRIGHT_MS


def test_a_camera_that_cannot_be_set_back_is_opened_anew_with_the_recipe_that_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """It takes the new exposure, and then its answers are lost for a while: nobody knows what it has."""
    adjust: Callable[..., None] = GenicamCapture.adjust
    silent = threading.Event()

    def lossy(self: GenicamCapture, settings: CameraSettings) -> None:
        if settings.exposure_ms == BRIGHT_MS or not silent.is_set():
            adjust(self, settings)
        if silent.is_set():
            raise UserError("the camera must answer", "no answer")

    monkeypatch.setattr(GenicamCapture, "adjust", lossy)
    with opened(within_the_process(), REQUEST) as source, _running(tmp_path, source) as (recipes, running):
        running.wait(3)
        silent.set()
        assert recipes.use("high", "me", "test").startswith("the recipe stays low: the camera must answer")
        before = len(running.kept.judgements)
        wait_until(lambda: source.reconnects == 1)
        silent.clear()
        assert _exposure_ms(source) == DARK_MS
        running.wait(before + 3)
        assert recipes.use("high", "me", "test") == ""
        running.wait(before + 6)
    assert {one.recipe for one in running.kept.judgements} == {"low", "high"}


def test_every_picture_of_a_camera_that_runs_by_itself_is_of_the_recipe_that_judges_it(tmp_path: Path):
    with opened(within_the_process(), REQUEST) as source, _running(tmp_path, source) as (recipes, running):
        for number in range(20):
            assert recipes.use(("high", "low")[number % 2], "me", "test") == ""
            running.wait(len(running.kept.judgements) + 2)
    assert {one.recipe for one in running.kept.judgements} == {"low", "high"}


@needs_gv_camera
def test_a_camera_that_is_lost_while_the_recipe_changes_is_set_when_it_is_back(tmp_path: Path):
    request = replace(REQUEST, trigger="software")
    orders = Orders(replace(LONG, deadline_s=3.0))
    with (
        gv_camera("RC1") as camera,
        opened(camera.id, request) as source,
        _running(tmp_path, source, orders) as (recipes, running),
    ):
        assert running.ask("SN1") == ""
        running.wait(1)
        camera.kill()
        answer = recipes.use("high", "me", "test")  # as its loss is not known yet it does not answer, and the old stays
        in_force = recipes.name_in_force()
        assert in_force == ("low" if answer else "high")
        assert running.ask("SN2") == ""
        running.wait(2)
        wait_until(lambda: source.state != "live")
        assert recipes.use("low", "me", "test") == "" and recipes.use("high", "me", "test") == ""
        assert running.ask("SN3") == ""
        running.wait(3)
        camera.start()
        wait_until(lambda: source._reader is not None and source._reader._capture is not None)
        for number in range(4, 40):
            running.ask(f"SN{number}")
            running.wait(number)
            if running.kept.judgements[-1].result.verdict != "none":
                break
    of: dict[str, Any] = {one.trigger.part: one for one in running.kept.judgements if one.trigger}
    assert [of[part].recipe for part in ("SN1", "SN2", "SN3")] == ["low", in_force, "high"]
    assert of["SN2"].result.verdict == of["SN3"].result.verdict == "none"
    last = running.kept.judgements[-1]
    assert (last.recipe, last.result.verdict != "none", last.frame.image.mean() > 20) == ("high", True, True)
