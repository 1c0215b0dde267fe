"""Triggers from a real broker."""

import contextlib
import json
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from runtime.common.errors import UserError
from runtime.inputs.mqtt import MqttTriggers
from runtime.sinks.mqtt_options import MqttOptions
from runtime.triggers.message import MOST_BYTES, parsed
from runtime.triggers.orders import FULL
from tests.support.broker import Broker, Listener, OldBroker, needs_broker
from tests.support.paths import ROOT
from tests.support.tiny_engine import write_tiny_engine
from tests.support.waiting import wait_until

TOPIC = "line1/trigger"


@pytest.fixture
def broker(tmp_path):
    broker = Broker(tmp_path)
    yield broker
    broker.kill()


@pytest.fixture
def listener(broker):
    listener = Listener(broker)
    yield listener
    listener.stop()


@contextlib.contextmanager
def taking(url, answer=""):
    """Take triggers from the broker at `url`; yield them as they come."""
    taken = []

    def take(trigger):
        taken.append(trigger)
        return answer

    with MqttTriggers(MqttOptions.parse(url), TOPIC) as triggers:
        triggers.start(take)
        assert triggers.subscribed.wait(120)
        yield taken, triggers


def publish(listener, payload, topic=TOPIC, retain=False):
    listener._client.publish(topic, payload, 1, retain).wait_for_publish(30)


@needs_broker
def test_a_message_is_a_trigger_with_its_part(broker, listener):
    with taking(broker.url()) as (taken, _):
        before_s = time.monotonic()
        for payload in ("SN1", '{"part": "SN2", "source": "camera:0"}', "", "{}"):
            publish(listener, payload)
        wait_until(lambda: len(taken) == 4)
    assert [trigger.part for trigger in taken] == ["SN1", "SN2", "", ""]
    assert [trigger.source for trigger in taken] == ["", "camera:0", "", ""]
    assert all(trigger.origin == "mqtt" and before_s < trigger.asked_s < time.monotonic() for trigger in taken)
    wait_until(lambda: len(listener.states()) == 2)
    assert (f"{TOPIC}/status", b"online") in listener.got
    assert listener.states() == [b"online", b"offline"]


@needs_broker
def test_what_is_refused_is_told(broker, listener):
    with taking(broker.url(), FULL) as (taken, _):
        publish(listener, "SN1")
        publish(listener, b"\xff\xfe")
        publish(listener, '{"part": 5}')
        refused = lambda: [json.loads(body) for topic, body in listener.got if topic == f"{TOPIC}/refused"]  # noqa: E731
        wait_until(lambda: len(refused()) == 3)
    assert refused()[0] == {"part": "SN1", "refused": FULL} and len(taken) == 1
    assert all("send a part id" in said["refused"] for said in refused()[1:])


@needs_broker
def test_a_message_that_the_broker_kept_is_no_trigger(broker, listener):
    publish(listener, "of yesterday", retain=True)
    with taking(broker.url()) as (taken, _):
        publish(listener, "now")
        wait_until(lambda: taken)
        assert [trigger.part for trigger in taken] == ["now"]


@needs_broker
def test_it_is_there_again_when_the_broker_is(broker, capsys):
    with taking(broker.url()) as (taken, triggers):
        broker.kill()
        wait_until(lambda: not triggers.subscribed.is_set())
        broker.start()
        assert triggers.subscribed.wait(120)
        listener = Listener(broker)
        publish(listener, "SN1")
        wait_until(lambda: taken)
        listener.stop()
    said = capsys.readouterr().err
    assert "no trigger is taken until it is back (1 so far)" in said and "triggers are taken again" in said


@needs_broker
def test_an_old_broker_gives_triggers_too(broker, listener):
    old = OldBroker(broker, b"\x20\x02\x00\x01")  # MQTT 3.1.1's "unacceptable protocol version"
    with taking(old.url()) as (taken, _):
        publish(listener, "SN1")
        wait_until(lambda: taken)
    old.close()


@pytest.mark.parametrize("topic", ["line1/#", "+/trigger", "$SYS/x", "line1/verdicts"])
def test_a_topic_that_cannot_be_is_refused(topic):
    with pytest.raises(UserError, match="--trigger mqtt:TOPIC"):
        MqttTriggers(MqttOptions.parse("mqtt://broker/line1/verdicts"), topic)


@pytest.mark.parametrize(
    "payload",
    [b"\xff", b"x" * 101, b"a\tb", "Ü".encode(), b"{", b'{"part": 1}', b'{"id": "a"}', b"{" * (MOST_BYTES + 1)],
)
def test_what_is_no_trigger_is_refused(payload):
    with pytest.raises(UserError):
        parsed(payload)


@needs_broker
def test_the_command_answers_on_the_topic_of_the_verdicts(broker, listener, tmp_path):
    engine = write_tiny_engine(tmp_path)
    (tmp_path / "images").mkdir()
    for number, grey in enumerate((10, 200)):
        Image.fromarray(np.full((24, 36, 3), grey, np.uint8)).save(tmp_path / "images" / f"{number}.png")
    words = ["--engine", engine, "--source", tmp_path / "images", "--mqtt", broker.url(), "--trigger", f"mqtt:{TOPIC}"]
    process = subprocess.Popen(
        [sys.executable, "-m", "runtime.infer", *map(str, words), "--deadline", "60000"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    answers = lambda: [json.loads(body) for topic, body in listener.got if topic == "line1/verdicts"]  # noqa: E731
    wait_until(lambda: (f"{TOPIC}/status", b"online") in listener.got)
    publish(listener, "A")
    publish(listener, "B")
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0, out
    assert [(answer["part"], answer["verdict"]) for answer in answers()] == [("A", "good"), ("B", "anomalous")]
