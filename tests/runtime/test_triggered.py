"""One trigger, one part, one frame, one answer: real engine, real threads, sources that a test drives."""

import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from runtime.images.view import View, ViewOptions
from runtime.inspection import Inspection, InspectionOptions
from runtime.sinks.json_lines import as_json
from runtime.sources.frame import Frame
from runtime.sources.watch import WatchedFolder, WatchOptions
from runtime.triggers.options import DecideOptions
from tests.support.controlled_source import ControlledSource
from tests.support.triggered_run import LONG, Kept, level_of
from tests.support.triggered_sources import FreeRunning, OnDemand
from tests.support.waiting import wait_until


def test_two_hundred_parts_each_get_their_own_frame(run):
    camera = OnDemand()
    running = run([camera])
    for number in range(1, 201):
        assert running.ask(f"SN{number}") == ""
    running.wait(200)
    answers = running.kept.by_part()
    assert len(running.kept.judgements) == len(answers) == 200
    assert {part: level_of(judgement) for part, judgement in answers.items()} == {f"SN{n}": n for n in range(1, 201)}
    assert all(judgement.result.verdict == ("anomalous" if n > 85 else "good") for n, judgement in _numbered(answers))
    assert running.orders.counts().complete


def _numbered(answers):
    return [(int(part.removeprefix("SN")), judgement) for part, judgement in answers.items()]


def test_a_frame_of_a_free_running_camera_is_read_after_its_trigger_and_used_once(run):
    running = run([FreeRunning()], replace(LONG, skip=2))
    for number in range(50):
        assert running.ask(f"SN{number}") == ""
        time.sleep(0.003)
    running.wait(50)
    judgements = running.kept.judgements
    assert [judgement.trigger.part for judgement in judgements] == [f"SN{number}" for number in range(50)]
    assert all(judgement.frame.monotonic_s > judgement.trigger.asked_s for judgement in judgements)
    indices = [judgement.frame.index for judgement in judgements]
    assert len(set(indices)) == 50 and indices == sorted(indices)


def test_frames_that_nothing_asks_for_are_neither_judged_nor_dropped(run):
    camera = ControlledSource("cam", True, *range(20))
    running = run([camera])
    wait_until(lambda: camera.asked == 21)
    assert running.ask("a") == ""
    camera.put(99)
    running.wait(1)
    camera.put(100, 101)
    wait_until(lambda: camera.asked == 24)
    assert [level_of(judgement) for judgement in running.kept.judgements] == [99]
    assert running.inspection.dropped() == {"cam": 0} and running.inspection.summary.frames == 1


def test_files_are_taken_in_order_and_the_run_ends_with_them(run):
    running = run([ControlledSource("file", False, *range(10, 15), None)])
    for part in "abcde":
        assert running.ask(part) == ""
    running.thread.join(120)
    assert {part: level_of(judgement) for part, judgement in running.kept.by_part().items()} == {
        "a": 10, "b": 11, "c": 12, "d": 13, "e": 14
    }  # fmt: skip


def test_the_limit_ends_the_run_and_answers_who_still_waits(run):
    running = run([ControlledSource("file", False, *range(10), None)], inspection=InspectionOptions(limit=3))
    for part in "abcde":
        running.ask(part)
    running.thread.join(120)
    running.inspection.close()
    answers = running.kept.by_part()
    assert [part for part, judgement in answers.items() if judgement.result.verdict == "good"] == ["a", "b", "c"]
    assert all(answers[part].result.reason.startswith("stopped") for part in "de")


def test_each_source_answers_for_the_part_unless_one_is_named(run):
    left, right = OnDemand("left"), OnDemand("right")
    running = run([left, right], inspection=InspectionOptions(batch_cameras=True, gather_ms=1000))
    assert running.ask("both") == running.ask("one", "right") == ""
    running.wait(3)
    answered = sorted((judgement.trigger.part, judgement.source) for judgement in running.kept.judgements)
    assert answered == [("both", "left"), ("both", "right"), ("one", "right")]


@pytest.mark.parametrize("batch_cameras", [False, True])
def test_parts_of_several_cameras_are_never_exchanged(run, batch_cameras):
    running = run([OnDemand("left"), OnDemand("right")], inspection=InspectionOptions(batch_cameras=batch_cameras))
    for number in range(1, 61):
        assert running.ask(f"SN{number}") == ""
    running.wait(120)
    for judgement in running.kept.judgements:
        assert f"SN{level_of(judgement)}" == judgement.trigger.part
    assert running.orders.counts().complete


def test_many_who_ask_at_once_get_their_answers(run):
    running = run([OnDemand()])
    threads = [threading.Thread(target=lambda i=i: [running.ask(f"{i}-{n}") for n in range(25)]) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    running.wait(200)
    assert len(running.kept.by_part()) == 200
    levels = [level_of(judgement) for judgement in running.kept.judgements]
    assert levels == list(range(1, 201))


def test_every_frame_of_a_camera_that_its_line_triggers_is_a_part(run):
    camera = ControlledSource("cam", True, 10, 20, 30)
    running = run([camera], replace(LONG, each_frame=True))
    running.wait(3)
    assert {part: level_of(judgement) for part, judgement in running.kept.by_part().items()} == {
        "1": 10,
        "2": 20,
        "3": 30,
    }


def test_a_part_that_stays_in_front_of_the_camera_is_not_frozen(run):
    camera = ControlledSource("cam", True)
    running = run([camera], inspection=InspectionOptions(frozen_after_s=0.05))
    for number in range(3):
        running.ask(f"SN{number}")
        camera.put(50)
        running.wait(number + 1)
        time.sleep(0.06)
    verdicts = [judgement.result.verdict for judgement in running.kept.judgements]
    assert verdicts == ["good", "good", "none"]  # two pictures say nothing, three in a row are no chance


def test_a_camera_that_changed_between_two_parts_is_not_frozen(run):
    camera = ControlledSource("cam", True)
    running = run([camera], inspection=InspectionOptions(frozen_after_s=0.05))
    for number in range(4):
        running.ask(f"SN{number}")
        camera.put(50)
        running.wait(number + 1)
        camera.put(60)  # nobody's, but it shows that the camera lives
        wait_until(lambda n=number: camera.asked == 2 * n + 3)
        time.sleep(0.06)
    assert [judgement.result.verdict for judgement in running.kept.judgements] == ["good"] * 4


def test_region_and_mask_hold_for_triggered_frames(run):
    view = View(ViewOptions(roi=(0, 0, 24, 16)))
    running = run([ControlledSource("file", False, 10, None)], views=[view])
    running.ask("a")
    running.wait(1)
    [judgement] = running.kept.judgements
    assert judgement.frame.image.shape == (16, 24, 3) and as_json(judgement)["view"] == {"roi": [0, 0, 24, 16]}


def test_a_watched_folder_gives_its_next_image(run, tmp_path):
    from PIL import Image

    folder = tmp_path / "in"
    folder.mkdir()
    running = run([WatchedFolder(folder, WatchOptions(poll_s=0.01, settle_s=0.02))])
    for number, level in enumerate((10, 20)):
        running.ask(f"SN{number}")
        Image.fromarray(np.full((32, 48, 3), level, np.uint8)).save(folder / f"{number}.png")
        running.wait(number + 1)
    assert {part: level_of(answer) for part, answer in running.kept.by_part().items()} == {"SN0": 10, "SN1": 20}


def test_a_frame_that_cannot_be_judged_is_its_parts_answer(run):
    camera = OnDemand()
    running = run([camera])
    running.ask("a")
    running.wait(1)
    wrong = Frame(np.zeros((32, 48, 3), np.uint8), "damaged", 9, time.time(), fault="it is damaged")
    source = type("Damaged", (ControlledSource,), {"__iter__": lambda self: iter([wrong])})("file", False)
    running = run([source])
    running.ask("b")
    running.thread.join(120)
    assert (running.kept.by_part()["b"].result.reason, running.kept.by_part()["b"].late) == ("it is damaged", False)


def test_the_lines_decision_stands_beside_the_frames_verdict(detector):
    kept = Kept()
    options = InspectionOptions(decide=DecideOptions.parse("2of3"))
    levels = [10, 10, 200, 10, 200, 200]
    with Inspection([ControlledSource("file", False, *levels, None)], detector, [kept], options) as inspection:
        inspection.run()
    assert [(j.result.verdict[0], j.decision[0], j.alarming) for j in kept.judgements] == [
        ("g", "n", False),
        ("g", "g", False),
        ("a", "g", False),
        ("g", "g", False),
        ("a", "a", True),
        ("a", "a", True),
    ]
    assert as_json(kept.judgements[2])["decision"] == "good"
