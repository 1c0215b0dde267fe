"""One trigger, one part, one frame, one answer: real engine, real threads, sources that a test drives."""

import threading
import time
from dataclasses import replace

import numpy as np
import pytest

import runtime
from runtime.images.view import View, ViewOptions
from runtime.inspection import Inspection, InspectionOptions
from runtime.sinks.delivery import Deliveries
from runtime.sinks.json_lines import as_json
from runtime.sinks.queueing import Queueing
from runtime.sources.backoff import Backoff
from runtime.sources.camera import CameraRequest, camera_origin
from runtime.sources.frame import Frame
from runtime.sources.live import Live, LiveOptions
from runtime.sources.watch import WatchedFolder, WatchOptions
from runtime.triggers.options import DecideOptions, TriggerOptions
from runtime.triggers.orders import FULL, Orders
from runtime.triggers.trigger import Trigger
from tests.support.controlled_source import ControlledSource
from tests.support.fake_camera import FakeCamera
from tests.support.tiny_engine import write_tiny_engine
from tests.support.triggered_sources import FreeRunning, OnDemand
from tests.support.waiting import wait_until

LONG = TriggerOptions(deadline_s=60.0, queue=500, skip=0)
HALF_S = TriggerOptions(deadline_s=0.5, queue=500, skip=0)


class Kept:
    """Keeps what it is offered."""

    def __init__(self):
        self.judgements = []

    def offer(self, judgement):
        self.judgements.append(judgement)

    def by_part(self):
        return {judgement.trigger.part: judgement for judgement in self.judgements if judgement.answers}


class Running:
    """An inspection in a thread of its own, with what it has judged so far."""

    def __init__(self, sources, detector, options, receivers=(), inspection=None, views=()):
        self.kept, self.orders = Kept(), Orders(options)
        self.inspection = Inspection(sources, detector, [self.kept, *receivers], inspection, views, self.orders)
        self.thread = threading.Thread(target=self.inspection.run)
        self.thread.start()

    def ask(self, part, source=""):
        return self.orders.take(Trigger(part, time.monotonic(), "http", source))

    def wait(self, answers):
        wait_until(lambda: len(self.kept.judgements) >= answers)

    def stop(self):
        self.inspection.stop()
        self.thread.join(60)
        assert not self.thread.is_alive()
        self.inspection.close()


@pytest.fixture
def detector(tmp_path):
    with runtime.load(write_tiny_engine(tmp_path), threads=1, backend="onnxruntime") as opened:
        yield opened


@pytest.fixture
def run(detector):
    """Return a function that starts an inspection of sources, which is stopped at the end."""
    started = []

    def start(sources, options=LONG, **more):
        started.append(Running(sources, more.pop("engine", detector), options, **more))
        return started[-1]

    yield start
    for running in started:
        running.stop()


def level_of(judgement):
    return int(judgement.frame.image[0, 0, 0])


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
    running.thread.join(60)
    assert {part: level_of(judgement) for part, judgement in running.kept.by_part().items()} == {
        "a": 10, "b": 11, "c": 12, "d": 13, "e": 14
    }  # fmt: skip


def test_the_limit_ends_the_run_and_answers_who_still_waits(run):
    running = run([ControlledSource("file", False, *range(10), None)], inspection=InspectionOptions(limit=3))
    for part in "abcde":
        running.ask(part)
    running.thread.join(60)
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


def test_a_late_frame_is_never_the_next_parts(run):
    camera = OnDemand()
    camera.deaf = {2}
    running = run([camera], replace(HALF_S, deadline_s=0.2))
    for part in ("a", "b"):
        running.ask(part)
    running.wait(2)
    with camera._told:  # what it had been told to take for b
        camera._due.append(2)
        camera._told.notify_all()
    running.ask("c")
    running.wait(3)
    time.sleep(1.2)
    running.ask("d")
    running.wait(4)
    answers = running.kept.by_part()
    assert {part: answer.result.verdict for part, answer in answers.items()} == {
        "a": "good", "b": "none", "c": "none", "d": "good"
    }  # fmt: skip
    assert level_of(answers["a"]) == 1 and level_of(answers["d"]) == 3


def test_an_engine_that_hangs_is_answered_for_at_the_deadline_and_its_verdict_recorded(run, detector, monkeypatch):
    goes_on = threading.Event()
    monkeypatch.setattr(detector.session, "submit", _hanging(detector.session.submit, goes_on))
    running = run([OnDemand()], HALF_S)
    running.ask("a"), running.ask("b")
    running.wait(2)
    goes_on.set()
    running.wait(3)
    answers, record = running.kept.judgements[:2], running.kept.judgements[2]
    assert [(answer.trigger.part, answer.late, answer.answers) for answer in answers] == [
        ("a", True, True),
        ("b", True, True),
    ]
    assert all(answer.result.reason == "late: no verdict within 500 ms" for answer in answers)
    assert (record.trigger.part, record.late, record.answers) == ("a", True, False)
    assert record.result.verdict == "none" and record.result.reason.startswith("late: good came ")
    assert record.result.score is not None
    line = as_json(record)
    assert (line["part"], line["late"], line["answer"], line["verdict"]) == ("a", True, False, "none")
    wait_until(lambda: running.orders.counts().lost == 1)  # b's frame waited for the engine, and was let go
    running.ask("c")
    running.wait(4)
    assert running.kept.by_part()["c"].result.verdict == "good"


def _hanging(submit, goes_on):
    def held(*arguments):
        assert goes_on.wait(60)
        return submit(*arguments)

    return held


class HangingSink:
    """A sink that never comes back."""

    name = "hangs"
    queueing = Queueing(capacity=2)

    def __init__(self):
        self.goes_on = threading.Event()

    def write(self, judgement):
        self.goes_on.wait(60)

    def close(self):
        self.goes_on.set()

    interrupt = close


class ListSink:
    """Keeps what is told to the line, as it is told."""

    name = "line"
    queueing = Queueing(capacity=500, answers_only=True)

    def __init__(self):
        self.lines, self.goes_on = [], threading.Event()
        self.goes_on.set()

    def write(self, judgement):
        assert self.goes_on.wait(60)
        self.lines.append(as_json(judgement.told()))

    def close(self):
        pass


def test_a_hanging_sink_makes_no_answer_late(run):
    hanging, line = HangingSink(), ListSink()
    with Deliveries([hanging, line]) as deliveries:
        running = run([OnDemand()], HALF_S, receivers=[deliveries])
        for number in range(20):
            assert running.ask(f"SN{number}") == ""
        wait_until(lambda: len(line.lines) == 20)
        hanging.goes_on.set()
        running.stop()
    assert not any(said["late"] for said in line.lines)


def test_what_a_sink_tells_after_the_deadline_is_told_as_late(run):
    line = ListSink()
    with Deliveries([line]) as deliveries:
        running = run([OnDemand()], HALF_S, receivers=[deliveries])
        line.goes_on.clear()
        running.ask("a")
        running.wait(1)
        assert running.kept.judgements[0].result.verdict == "good"
        time.sleep(0.6)
        line.goes_on.set()
        wait_until(lambda: line.lines)
    assert (line.lines[0]["verdict"], line.lines[0]["late"]) == ("none", True)
    assert line.lines[0]["reason"].startswith("late: good came ")


def test_what_came_after_the_answer_is_not_told_to_the_line_but_recorded(run, detector, monkeypatch):
    goes_on, line = threading.Event(), ListSink()
    monkeypatch.setattr(detector.session, "submit", _hanging(detector.session.submit, goes_on))
    with Deliveries([line]) as deliveries:
        running = run([OnDemand()], replace(HALF_S, deadline_s=0.05), receivers=[deliveries])
        running.ask("a")
        running.wait(1)
        goes_on.set()
        running.wait(2)
        running.stop()
    assert [(said["part"], said["verdict"]) for said in line.lines] == [("a", "none")]


def test_a_lost_camera_is_named_at_the_deadline_and_answers_again_when_it_is_back(run, monkeypatch):
    fake = FakeCamera().install(monkeypatch)
    backoff = Backoff(0.05, 0.05)
    options = LiveOptions(backoff, say=lambda line: None)
    running = run(
        [Live(camera_origin(0, CameraRequest()), options)], HALF_S, inspection=InspectionOptions(frozen_after_s=0)
    )
    assert running.ask("a") == ""
    fake.put(10)
    running.wait(1)
    fake.opens = False
    fake.put(None)
    wait_until(lambda: running.inspection.states()[0].state.startswith("reconnecting"))
    assert running.ask("b") == ""
    running.wait(2)
    assert running.kept.judgements[1].result.reason.startswith(
        "late: no verdict within 500 ms (no frame of camera:0, reconnecting since "
    )
    fake.opens = True
    wait_until(lambda: len(fake.opened_with) > 3 and fake.isOpened())
    assert running.ask("c") == ""  # during the reconnect: the first frame after it
    fake.put(30)
    running.wait(3)
    assert running.kept.judgements[2].trigger.part == "c"
    assert {verdict.result.verdict for verdict in running.kept.judgements[::2]} == {"good"}


def test_stopping_answers_every_part_that_waits(run):
    running = run([ControlledSource("cam", True)])
    for part in "abc":
        running.ask(part)
    running.stop()
    reasons = {part: judgement.result.reason for part, judgement in running.kept.by_part().items()}
    assert reasons.keys() == set("abc") and all(reason.startswith("stopped: ") for reason in reasons.values())
    assert not any(judgement.late for judgement in running.kept.judgements)
    assert running.orders.counts().lost == 3


def test_a_new_run_begins_afresh(run):
    first = run([ControlledSource("cam", True)])
    first.ask("a")
    first.stop()
    second = run([OnDemand()])
    assert second.ask("a") == ""
    second.wait(1)
    assert second.kept.judgements[0].result.verdict == "good"


def test_a_full_queue_refuses_and_takes_again(run):
    camera = ControlledSource("cam", True)
    running = run([camera], replace(LONG, queue=2))
    assert [running.ask(part) for part in "abc"] == ["", "", FULL]
    camera.put(10)
    running.wait(1)
    assert running.ask("c") == ""


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
    running.thread.join(60)
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
