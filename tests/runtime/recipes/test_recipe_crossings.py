"""Recipes with what else a line has: sizes of frames, videos, events, ends, and a camera's own triggers."""

import json
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from runtime import infer
from runtime.common.errors import run_command
from runtime.inspection import InspectionOptions
from runtime.recipes.book import ENDED
from runtime.recipes.message import parsed, recipe_from_object
from runtime.sinks.events import EventOptions, EventSink, Window
from runtime.sinks.video import VideoSink
from runtime.triggers.options import DecideOptions, TriggerOptions
from runtime.triggers.orders import CHANGING, Orders
from tests.support.controlled_source import ControlledSource
from tests.support.recipes import TWO, opened, write_recipes
from tests.support.triggered_run import Switching
from tests.support.waiting import wait_until

ROI = 'roi = "0,0,16,24"\n'


def _alternate(running, camera, recipes, levels):
    for number, level in enumerate(levels):
        assert recipes.use(("low", "high")[number % 2], "me", "test") == ""
        camera.put(level, level)
        running.wait(2 * number + 2)


def test_a_video_has_a_segment_for_each_size_and_an_event_has_one_recipe(tmp_path: Path):
    with opened(tmp_path, TWO + ROI + "rotate = 90\n") as recipes:
        camera = ControlledSource("cam", False)
        video = VideoSink(tmp_path / "v.avi", 3.0)
        events = EventSink(tmp_path / "events", 3.0, EventOptions(Window(5), Window(5)))
        with Switching([camera], recipes, sinks=[video, events]) as running:
            _alternate(running, camera, recipes, [200, 220, 240])
        video.close()
        events.close()
    sizes = []
    for path in sorted(tmp_path.glob("v_*.avi")):
        capture = cv2.VideoCapture(str(path))
        sizes.append(tuple(int(capture.get(of)) for of in (3, 4, 7)))
        capture.release()
    assert sizes == [(48, 32, 2), (24, 16, 2), (48, 32, 2)]
    found = []
    for folder in (tmp_path / "events").glob("*_cam_*"):
        event = json.loads((folder / "event.json").read_text())
        lines = [json.loads(line) for line in (folder / "frames.jsonl").read_text().splitlines()]
        assert {line["threshold"] for line in lines} == {event["threshold"]} and event["complete"]
        found.append((lines[0]["frame"], {line["recipe"] for line in lines}, event["frames"]))
    assert sorted(found) == [(0, {"low"}, 2), (2, {"high"}, 2), (4, {"low"}, 2)]


def test_a_debounced_decision_is_not_carried_into_another_recipe(tmp_path: Path):
    with opened(tmp_path) as recipes:
        camera = ControlledSource("cam", False)
        with Switching([camera], recipes, options=InspectionOptions(decide=DecideOptions(1, 1, 2))) as running:
            _alternate(running, camera, recipes, [128, 128, 128])
    said = [(one.recipe, one.decision) for one in running.kept.judgements]
    assert said == [
        ("low", "none"),
        ("low", "anomalous"),
        ("high", "none"),
        ("high", "good"),
        ("low", "none"),
        ("low", "anomalous"),
    ]


def test_a_frame_that_another_recipes_region_does_not_fit_has_no_verdict_by_that_one_alone(tmp_path: Path):
    with opened(tmp_path, TWO + 'roi = "0,0,640,480"\n') as recipes:
        camera = ControlledSource("cam", False)
        with Switching([camera], recipes) as running:
            _alternate(running, camera, recipes, [50, 50, 50])
    assert [one.result.verdict for one in running.kept.judgements] == ["good", "good", "none", "none", "good", "good"]
    assert "must lie within" in running.kept.judgements[2].result.reason


def test_a_first_frame_that_does_not_fit_is_told_with_the_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = write_recipes(tmp_path, TWO.replace('name = "low"', 'name = "low"\nroi = "0,0,640,480"'))
    Image.fromarray(np.full((32, 48, 3), 50, np.uint8)).save(tmp_path / "a.png")
    words = ["--recipes", path, "--source", tmp_path / "a.png", "--backend", "onnxruntime", "--threads", 1]
    assert run_command(infer.main, [str(word) for word in words]) == 2
    [error] = [one for one in capsys.readouterr().err.splitlines() if one.startswith("error: ")]
    assert error.startswith("error: recipe low: ") and "640" in error


def test_a_change_under_way_is_told_before_the_inspection_has_ended_and_none_is_taken_after(tmp_path: Path):
    with opened(tmp_path) as recipes:
        camera = ControlledSource("cam", True)
        running = Switching([camera], recipes)
        began, go, told = threading.Event(), threading.Event(), []

        def slowly(*change):
            began.set()
            assert go.wait(120)
            told.append(change[1].name)

        recipes.told.append(slowly)
        changing = threading.Thread(target=recipes.use, args=("high", "me", "test"))
        changing.start()
        assert began.wait(120)
        running.inspection.stop()
        camera.close()
        ending = threading.Thread(target=running.stop)
        ending.start()
        running.thread.join(120)
        ending.join(0.1)
        assert ending.is_alive() and not told  # the audit's file stays open for it
        go.set()
        ending.join(120)
        changing.join(120)
        assert told == ["high"] and recipes.use("low", "me", "test") == ENDED and told == ["high"]


def test_ids_for_a_camera_that_its_own_line_triggers_stay_their_parts_across_a_change(tmp_path: Path):
    options = TriggerOptions(deadline_s=60.0, queue=500, skip=0, each_frame=True, named=True)
    with opened(tmp_path) as recipes:
        camera = ControlledSource("cam", True)
        with Switching([camera], recipes, Orders(options)) as running:
            for number, name in enumerate(("low", "high", "low")):
                assert recipes.use(name, "me", "test") == "" and running.ask(f"SN{number}") == ""
                camera.put(128)
                running.wait(number + 1)
            with running.orders.held():
                assert running.ask("SN3") == CHANGING
                camera.put(128)
                wait_until(lambda: running.orders.counts().refused == 2)
            assert running.ask("SN4") == ""
            camera.put(128)
            running.wait(4)
    said = [(one.trigger.part, one.recipe, one.result.threshold) for one in running.kept.judgements]
    assert said == [("SN0", "low", 1.0), ("SN1", "high", 2.0), ("SN2", "low", 1.0), ("SN4", "low", 1.0)]


ODD = ["none", "7", "two words", 'it\'s "quoted"', "Größe «Ø»", "{x}", "-", "x" * 64]


def test_any_printable_name_can_be_asked_for(tmp_path: Path):
    text = "".join(
        f'[[recipe]]\nname = {json.dumps(name, ensure_ascii=False)}\nengine = "{{folder}}/low.onnx"\n' for name in ODD
    )
    with opened(tmp_path, text) as recipes:
        for number, name in reversed(list(enumerate(ODD, 1))):
            asked = json.dumps({"recipe": name})
            assert recipes.numbered(number) == name == recipe_from_object(json.loads(asked)) == parsed(asked.encode())
            if not name.startswith("{"):
                assert parsed(name.encode()) == name
            assert recipes.use(name, "me", "test") == "" and recipes.name_in_force() == name
    for name in ODD:
        words = [f"--recipe={name}", "--dry-run", "--source", str(tmp_path)]
        assert infer.main(["--recipes", str(tmp_path / "recipes.toml"), *words]) is None
    assert run_command(infer.main, ["--recipes", str(tmp_path / "recipes.toml"), "--recipe=", "--source", "x"]) == 2
