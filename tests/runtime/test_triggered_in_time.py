"""Each part that is triggered is answered by its deadline, whatever hangs, is lost, full or at its end."""

import threading
import time
from dataclasses import replace

from runtime.inspection import InspectionOptions
from runtime.sinks.delivery import Deliveries
from runtime.sinks.json_lines import as_json
from runtime.sinks.queueing import Queueing
from runtime.sources.backoff import Backoff
from runtime.sources.camera import CameraRequest, camera_origin
from runtime.sources.live import Live, LiveOptions
from runtime.triggers.options import TriggerOptions
from runtime.triggers.orders import FULL
from tests.support.controlled_source import ControlledSource
from tests.support.fake_camera import FakeCamera
from tests.support.triggered_run import LONG, level_of
from tests.support.triggered_sources import OnDemand
from tests.support.waiting import wait_until

HALF_S = TriggerOptions(deadline_s=0.5, queue=500, skip=0)


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
        assert goes_on.wait(120)
        return submit(*arguments)

    return held


class HangingSink:
    """A sink that never comes back."""

    name = "hangs"
    queueing = Queueing(capacity=2)

    def __init__(self):
        self.goes_on = threading.Event()

    def write(self, judgement):
        self.goes_on.wait(120)

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
        assert self.goes_on.wait(120)
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
