"""What sinks make of triggers and decisions: a part has one answer, and none that is late is a verdict."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from runtime.sinks.console import ConsoleSink
from runtime.sinks.delivery import Delivery
from runtime.sinks.events import EventSink
from runtime.sinks.json_lines import as_json
from runtime.sinks.judgement import Judgement
from runtime.sinks.mqtt import MqttSink
from runtime.sinks.mqtt_options import MqttOptions
from runtime.sinks.webhook import WebhookOptions, WebhookSink
from runtime.triggers.trigger import Trigger
from tests.support.broker import Broker, Listener, needs_broker
from tests.support.judgements import judgement
from tests.support.waiting import wait_until
from tests.support.webhook_server import WebhookServer


def asked(part: str, due_in_s: float, score: float = 0.5, answers: bool = True) -> Judgement:
    """Return a judgement of `part`, whose deadline is `due_in_s` from now; without `answers`, what came after it."""
    now_s = time.monotonic()
    one = replace(
        judgement(0, score), trigger=Trigger(part, now_s - 0.25, "http"), due_s=now_s + due_in_s, judged_s=now_s
    )
    return one if answers else replace(one.too_late(now_s), answers=False)


@pytest.fixture
def server() -> Iterator[WebhookServer]:
    server = WebhookServer()
    yield server
    server.stop()


@needs_broker
def test_the_broker_gets_one_answer_a_part_and_late_ones_as_late(tmp_path: Path):
    broker = Broker(tmp_path)
    listener = Listener(broker)
    delivery = Delivery(MqttSink(MqttOptions.parse(broker.url())))
    for one in (asked("in time", 60.0), asked("waited", -1.0), asked("recorded", -1.0, answers=False)):
        delivery.offer(one)
    delivery.close()
    wait_until(lambda: len(listener.lines()) == 2)
    told = {line["part"]: (line["verdict"], line["late"]) for line in listener.lines()}
    assert told == {"in time": ("good", False), "waited": ("none", True)}
    assert delivery.counts().delivered == 2
    listener.stop()
    broker.kill()


def test_the_webhook_looks_again_before_each_try(server: WebhookServer):
    server.answers = [500, 204]
    options = WebhookOptions(server.url, all_frames=True, first_pause_s=0.4)
    delivery = Delivery(WebhookSink(options))
    delivery.offer(asked("A", 0.15, 2.0))
    delivery.offer(asked("B", -1.0, answers=False))
    delivery.close()
    bodies = [body for _, body in server.got]
    assert {body["part"] for body in bodies} == {"A"}
    assert (bodies[-1]["verdict"], bodies[-1]["late"]) == ("none", True)
    assert bodies[-1]["reason"].startswith("late: anomalous came ")


def test_a_line_says_who_asked_and_when_it_was_answered():
    line = as_json(asked("SN1", 60.0))
    assert (line["part"], line["trigger"], line["late"]) == ("SN1", "http", False)
    assert line["answer_ms"] == pytest.approx(250, abs=1) and "answer" not in line
    record = as_json(asked("SN1", -1.0, answers=False))
    assert (record["verdict"], record["late"], record["answer"]) == ("none", True, False)
    assert record["reason"] == "late: good came 250 ms after the trigger" and record["score"] == 0.5
    assert not {"part", "trigger", "answer_ms", "late", "decision"} & as_json(judgement()).keys()


def test_what_had_no_verdict_says_so_when_it_is_late():
    one = asked("SN1", 60.0)
    late = replace(one, result=one.result.without_verdict("the picture shows nothing")).too_late(time.monotonic())
    assert late.result.reason.startswith("late: no verdict (the picture shows nothing) came ")


def test_the_console_shows_part_and_decision(capsys: pytest.CaptureFixture[str]):
    sink = ConsoleSink()
    sink.write(asked("SN1", 60.0))
    sink.write(replace(judgement(1, 2.0), decision="good"))
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("f000000  0.5000  good  part SN1  2")
    assert second == "f000001  2.0000  anomalous  decision: good"


@pytest.mark.parametrize(
    ("verdict", "decision", "alarming"),
    [
        ("anomalous", "good", False),
        ("good", "anomalous", True),
        ("none", "good", False),
        ("none", "none", True),
        ("good", "none", False),  # not decided yet
        ("anomalous", "none", False),
        ("anomalous", None, True),
        ("none", None, True),
    ],
)
def test_the_decision_says_whether_somebody_has_to_look(verdict, decision, alarming):
    one = judgement()
    assert replace(one, result=replace(one.result, verdict=verdict), decision=decision).alarming == alarming


def test_events_and_webhook_go_by_the_decision(tmp_path: Path, server: WebhookServer):
    delivery = Delivery(WebhookSink(WebhookOptions(server.url)))
    with EventSink(tmp_path, maximum=2.0) as events:
        for index, decision in enumerate(("good", "good", "anomalous", "good")):
            one = replace(judgement(index, 1.5), decision=decision)
            events.write(one)
            delivery.offer(one)
    delivery.close()
    assert len(list(tmp_path.glob("*/overlays/*.jpg"))) == 1
    assert [body["frame"] for _, body in server.got] == [2] and server.got[0][1]["decision"] == "anomalous"
