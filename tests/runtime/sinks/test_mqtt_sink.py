import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.common.errors import UserError
from runtime.sinks.delivery import Delivery
from runtime.sinks.json_lines import as_json, encode
from runtime.sinks.mqtt import MqttSink
from runtime.sinks.mqtt_options import MqttOptions
from runtime.sinks.queueing import Counts, Queueing
from tests.support.broker import Broker, Listener, OldBroker, needs_broker
from tests.support.judgements import judgement
from tests.support.waiting import wait_until


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    broker = Broker(tmp_path)
    yield broker
    broker.kill()


@pytest.fixture
def listener(broker: Broker) -> Iterator[Listener]:
    listener = Listener(broker)
    yield listener
    listener.stop()


@needs_broker
def test_every_verdict_arrives_and_the_broker_confirms_it(broker: Broker, listener: Listener):
    delivery = Delivery(MqttSink(MqttOptions.parse(broker.url())))
    for i in range(50):
        delivery.offer(judgement(i, 2.0 if i == 3 else 0.5))
    delivery.close()
    assert delivery.counts().delivered == 50 and delivery.counts().undelivered == 0
    wait_until(lambda: len(listener.got) == 52)
    assert listener.frames() == list(range(50)) and listener.states() == [b"online", b"offline"]
    bodies = [json.loads(payload) for topic, payload in listener.got if topic == "line1/verdicts"]
    assert bodies[3] == as_json(judgement(3, 2.0))


@needs_broker
def test_the_broker_says_offline_when_the_program_dies(broker: Broker, listener: Listener):
    sink = MqttSink(MqttOptions.parse(broker.url()))
    wait_until(lambda: listener.states() == [b"online"])
    sink._connection._client.socket().shutdown(socket.SHUT_RDWR)  # as the kernel does for a process that has died
    wait_until(lambda: b"offline" in listener.states())
    wait_until(lambda: listener.states()[-1] == b"online")  # and it is there again by itself
    sink.close()
    sink.close()


@needs_broker
def test_a_broker_that_is_killed_and_restarted_gets_the_newest(broker: Broker):
    sink = MqttSink(MqttOptions.parse(broker.url()))
    said: list[str] = []
    delivery = Delivery(sink, Queueing(capacity=5, keep="newest", pictures=False), say=said.append)
    for i in range(3):
        delivery.offer(judgement(i))
    wait_until(lambda: delivery.counts().delivered == 3)
    broker.kill()
    wait_until(lambda: not sink._connection.connected.is_set())
    for i in range(3, 103):
        delivery.offer(judgement(i))
    assert [waiting.frame.index for waiting in delivery._queue] == list(range(98, 103))
    broker.start()
    wait_until(lambda: delivery.counts().queued == 0)
    delivery.close()
    counts = delivery.counts()
    # three before; five that waited; and the one that was being tried, unless its time was over before the restart
    assert counts.delivered in (8, 9) and counts.delivered + counts.lost + counts.failed == 103
    assert sum("is too slow or dead" in line for line in said) == 1


@needs_broker
def test_a_broker_that_stands_still_is_counted_and_closing_does_not_wait_for_it(broker: Broker):
    delivery = Delivery(MqttSink(MqttOptions.parse(broker.url())), say=lambda line: None)
    delivery.offer(judgement(0))
    wait_until(lambda: delivery.counts().delivered == 1)
    broker.stand_still()
    for i in range(1, 11):
        delivery.offer(judgement(i))
    delivery.close(timeout_s=0.2)
    counts = delivery.counts()
    assert (counts.delivered, counts.failed, counts.lost, counts.queued) == (1, 1, 9, 0)
    assert "not confirmed" in counts.last_error  # told by the sink, which was interrupted, within the grace
    wait_until(lambda: not delivery._thread.is_alive())


def test_without_a_broker_the_program_starts_and_says_why_nothing_arrives(monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("paho.mqtt.client")
    monkeypatch.setattr("runtime.sinks.mqtt_connection.CONFIRM_S", 0.5)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but nobody listens
        sink = MqttSink(MqttOptions("127.0.0.1", taken.getsockname()[1], "a"))
        delivery = Delivery(sink, say=lambda line: None)
        delivery.offer(judgement())
        delivery.close()
    assert delivery.counts().failed == 1 and "refused" in delivery.counts().last_error


@needs_broker
def test_user_and_password_come_from_a_file_and_a_wrong_one_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    passwords = tmp_path / "passwords"
    tool = shutil.which("mosquitto_passwd")
    if tool is None:
        pytest.skip("no mosquitto_passwd here")
    subprocess.run([tool, "-b", "-c", str(passwords), "line", "right"], check=True, timeout=30, capture_output=True)
    broker = Broker(tmp_path, "allow_anonymous false", f"password_file {passwords}")
    monkeypatch.setattr("runtime.sinks.mqtt_connection.CONFIRM_S", 1.0)
    credentials = tmp_path / "credentials"
    try:
        for password, delivered in (("right", 1), ("wrong", 0)):
            credentials.write_text(f"line\n{password}\n")
            delivery = Delivery(MqttSink(MqttOptions.parse(broker.url(), credentials)), say=lambda line: None)
            delivery.offer(judgement())
            delivery.close()
            assert (delivery.counts().delivered, delivery.counts().failed) == (delivered, 1 - delivered)
        assert "refused: Not authorized" in delivery.counts().last_error
    finally:
        broker.kill()


@needs_broker
def test_tls_takes_the_brokers_certificate_only_from_a_trusted_authority(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl here")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, timeout=60, capture_output=True)
    broker = Broker(tmp_path, "allow_anonymous true", f"keyfile {key}", f"certfile {certificate}")
    monkeypatch.setattr("runtime.sinks.mqtt_connection.CONFIRM_S", 2.0)
    url = broker.url().replace("mqtt://", "mqtts://")
    try:
        for ca, delivered in ((certificate, 1), (None, 0)):
            delivery = Delivery(MqttSink(MqttOptions.parse(url, ca=ca)), say=lambda line: None)
            delivery.offer(judgement())
            delivery.close()
            assert (delivery.counts().delivered, delivery.counts().failed) == (delivered, 1 - delivered)
        assert "CERTIFICATE_VERIFY_FAILED" in delivery.counts().last_error
    finally:
        broker.kill()


GOOD, LONG = (len(encode(as_json(judgement(0, score)))) for score in (0.5, 2.0))  # an anomalous line has a box


def _with_rights(folder: Path, rights: str, *settings: str) -> Broker:
    (folder / "rights").write_text(
        f"topic {rights} line1/verdicts\ntopic write line1/verdicts/status\ntopic read line2\n"
    )
    return Broker(folder, "allow_anonymous true", f"acl_file {folder / 'rights'}", *settings)


def _deliver(url: str, scores: list[float]) -> Counts:
    delivery = Delivery(MqttSink(MqttOptions.parse(url)), say=lambda line: None)
    for i, score in enumerate(scores):
        delivery.offer(judgement(i, score))
    wait_until(lambda: not delivery.counts().queued)
    delivery.close()
    return delivery.counts()


@pytest.fixture(params=[b"\x20\x02\x00\x01", b""], ids=["refuses", "ends the connection"])
def answer(request: pytest.FixtureRequest) -> bytes:
    """What an old broker says to a client with MQTT 5: "unacceptable protocol version", or nothing."""
    return request.param


@needs_broker
@pytest.mark.parametrize("old", [False, True])
def test_what_an_access_list_drops_is_not_delivered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: bool):
    monkeypatch.setattr("runtime.sinks.mqtt_connection.CONFIRM_S", 2.0)
    broker = _with_rights(tmp_path, "read")
    before = OldBroker(broker, b"\x20\x02\x00\x01") if old else broker
    counts = _deliver(before.url(), [0.5, 2.0])
    broker.kill()
    assert (counts.delivered, counts.failed) == (0, 2)
    assert ("did not come back" if old else "refused the line: Not authorized") in counts.last_error


@needs_broker
@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("limit", [f"message_size_limit {GOOD + 20}", f"max_packet_size {GOOD + 50}"])
def test_a_line_that_is_too_long_for_the_broker_fails_and_the_others_arrive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: bool, limit: str
):
    monkeypatch.setattr("runtime.sinks.mqtt_connection.CONFIRM_S", 4.0)
    broker = Broker(tmp_path, "allow_anonymous true", limit)
    listener = Listener(broker)
    before = OldBroker(broker, b"\x20\x02\x00\x01") if old else broker
    counts = _deliver(before.url(), [0.5, 2.0, 0.5])
    wait_until(lambda: len(listener.frames()) == 2)
    listener.stop()
    broker.kill()
    assert (counts.delivered, counts.failed) == (2, 1) and listener.frames() == [0, 2]
    told = {
        # by mosquitto 2.0; later ones refuse the line
        (False, "message"): f"ends the connection at a line of {LONG} bytes",
        (False, "max_pac"): f"a line of {LONG} bytes; the broker takes {GOOD + 50}",
        (True, "message"): "did not come back",
        (True, "max_pac"): f"ends the connection at a line of {LONG} bytes",
    }
    assert told[old, limit[:7]] in counts.last_error or "refused the line: Packet too large" in counts.last_error


@needs_broker
def test_an_old_broker_gets_the_lines_and_gives_each_back(broker: Broker, listener: Listener, answer: bytes):
    old = OldBroker(broker, answer)
    counts = _deliver(old.url(), [0.5] * 20)
    old.close()
    assert (counts.delivered, counts.undelivered) == (20, 0)
    wait_until(lambda: len(listener.got) == 22)
    assert listener.frames() == list(range(20)) and listener.states() == [b"online", b"offline"]


@needs_broker
def test_an_account_that_may_only_publish_delivers_and_what_cannot_be_checked_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("runtime.sinks.mqtt_connection.CONFIRM_S", 2.0)
    broker = _with_rights(tmp_path, "write")
    counts = _deliver(broker.url(), [0.5, 0.5])
    broker.kill()
    assert (counts.delivered, counts.failed) == (2, 0)
    assert "the broker takes lines, but the line did not come back" in capsys.readouterr().err


@needs_broker
def test_a_refused_status_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "rights").write_text("topic readwrite line3\n")
    broker = Broker(tmp_path, "allow_anonymous true", f"acl_file {tmp_path / 'rights'}")
    counts = _deliver(broker.url("line3"), [0.5])
    broker.kill()
    assert counts.delivered == 1 and "the broker refuses line3/status: Not authorized" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://host/topic", "an MQTT address is"),
        ("mqtt:///topic", "an MQTT address is"),
        ("mqtt://host:99999/topic", "an MQTT address is"),
        ("mqtt://host", "a topic to publish to"),
        ("mqtt://host/", "a topic to publish to"),
        ("mqtt://host/a/%23", "a topic to publish to"),
        ("mqtt://host/$SYS/a", "a topic to publish to"),
        ("mqtt://host/a/+/b", "a topic to publish to"),
        ("mqtt://user:word@host/a", "do not belong on the command line"),
        ("mqtt:/user:word@host/a", "an MQTT address is"),
        ("mqtt://user:wo/word@host/a", "an MQTT address is"),
    ],
)
def test_addresses_that_are_none_are_refused(url: str, message: str):
    with pytest.raises(UserError, match=message) as error:
        MqttOptions.parse(url)
    assert "word" not in str(error.value).replace("password", "").replace("PASSWORD", "")


def test_addresses_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CFLOW_MQTT_USER", "line")
    monkeypatch.setenv("CFLOW_MQTT_PASSWORD", "right")
    assert MqttOptions.parse("mqtt://host/a/b") == MqttOptions("host", 1883, "a/b", False, "line", "right")
    assert MqttOptions.parse("mqtts://[::1]:1/a").port == 1 and MqttOptions.parse("mqtts://h/a").port == 8883
    with pytest.raises(UserError, match="--mqtt-ca"):
        MqttOptions.parse("mqtt://host/a", ca=tmp_path)
    (tmp_path / "credentials").write_bytes(b"\xff")
    with pytest.raises(UserError, match="text file"):
        MqttOptions.parse("mqtt://host/a", tmp_path / "credentials")
    (tmp_path / "credentials").write_text("")
    with pytest.raises(UserError, match="two lines"):
        MqttOptions.parse("mqtt://host/a", tmp_path / "credentials")
