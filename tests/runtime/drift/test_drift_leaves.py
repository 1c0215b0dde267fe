"""Where drift alarms go: page, metrics, MQTT and OPC UA, and how an operator acknowledges one."""

import json
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from runtime import infer
from runtime.common.errors import run_command
from runtime.drift import source as drift_source
from runtime.drift import watch as drift_watch
from runtime.drift.source import Change
from runtime.records.log import Log
from runtime.records.read import audit
from runtime.sinks.mqtt import MqttSink
from runtime.sinks.mqtt_options import MqttOptions
from tests.support.broker import Broker, needs_broker
from tests.support.drifting import ALARM, standing
from tests.support.fake_camera import FakeCamera
from tests.support.serve_rig import TOKEN, serving
from tests.support.tiny_engine import write_tiny_engine
from tests.support.waiting import wait_until

ASKED = {"X_Requested_By": "cflow-edge"}


def test_the_page_and_the_metrics_show_what_stands(tmp_path: Path):
    with serving(tmp_path, drift=standing()) as rig:
        [alarm] = rig.state()["drift"]["alarms"]
        assert (alarm["number"], alarm["cause"], alarm["source"]) == (7, "light", "camera:0")
        assert alarm["text"].startswith("camera:0: drift of light, from 131.0 to 124.6 grey levels, since 2023-11-1")
        assert alarm["text"].endswith("(also score)")
        metrics = rig.ask("/metrics").body.decode()
        assert 'cflow_drift{recipe="",source="camera:0"} 1.0' in metrics and "cflow_drift_alarms_total 1.0" in metrics
        assert 'cflow_drift_stability_index{number="light",recipe="",source="camera:0"} 0.31' in metrics
        assert 'cflow_drift_moved{number="light",recipe="",source="camera:0"} -14.0' in metrics


def test_without_a_watch_the_page_says_so(tmp_path: Path):
    with serving(tmp_path) as rig:
        assert rig.state()["drift"] is None and b"cflow_drift" not in rig.ask("/metrics").body
        body = {"alarm": 7, "new_normal": False}
        assert rig.ask("/api/drift", "POST", body, **ASKED).status == 404


def test_an_operator_acknowledges_with_a_name_and_it_is_audited(tmp_path: Path):
    with Log(tmp_path / "i.db") as log, serving(tmp_path, TOKEN, log=log, drift=standing(log)) as rig:
        known = {"Authorization": f"Bearer {TOKEN}"}
        body = {"alarm": 7, "new_normal": False, "name": "Ann"}
        assert rig.ask("/api/drift", "POST", body, **ASKED).status == 401
        assert rig.ask("/api/drift", "POST", body, **known).json() == {"alarm": 7}
        [alarm] = rig.state(**known)["drift"]["alarms"]
        assert alarm["acknowledged_by"].startswith("Ann, page")
        assert rig.ask("/api/drift", "POST", {**body, "new_normal": True}, **known).status == 200
        assert not rig.state(**known)["drift"]["alarms"]
        assert rig.ask("/api/drift", "POST", body, **known).status == 404
    said = [(row["what"], row["new"], row["who"].split(",")[0]) for row in audit(tmp_path / "i.db")]
    assert said == [
        ("drift of camera:0", "taken for the new normal", "Ann"),
        ("drift of camera:0", "acknowledged", "Ann"),
    ]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"alarm": 7},
        {"alarm": 7, "new_normal": 1},
        {"alarm": -1, "new_normal": True},
        {"alarm": 7, "new_normal": True, "name": "x" * 65},
        {"alarm": 7, "new_normal": True, "reason": "it is winter"},
    ],
)
def test_a_body_that_acknowledges_nothing_is_refused(tmp_path: Path, body: dict):
    with serving(tmp_path, drift=standing()) as rig:
        assert rig.ask("/api/drift", "POST", body, **ASKED).status == 400


@needs_broker
def test_mqtt_holds_what_stands_over_a_brokers_restart(tmp_path: Path):
    from paho.mqtt.client import CallbackAPIVersion, Client

    broker, held = Broker(tmp_path), []

    def look() -> list[dict]:
        got: list[dict] = []
        client = Client(CallbackAPIVersion.VERSION2)
        client.on_message = lambda *of: got.append(json.loads(of[-1].payload))
        client.connect("127.0.0.1", broker.port)
        client.subscribe("line1/verdicts/drift")
        end = time.monotonic() + 2
        while not got and time.monotonic() < end:
            client.loop(0.1)
        client.disconnect()
        held[:] = [alarm for one in got for alarm in one["alarms"]]
        return held

    try:
        with MqttSink(MqttOptions.parse(broker.url())) as sink:
            sink.drift([ALARM.said()])  # perhaps before there is a connection
            wait_until(look, "the broker holds no alarm")
            assert held[0]["cause"] == "light" and held[0]["number"] == 7
            broker.kill()
            broker.start()  # which has forgotten all
            wait_until(look, "the broker holds no alarm after its restart")
            sink.drift([])
            wait_until(lambda: not look(), "the broker still holds the alarm")
    finally:
        broker.kill()


def test_opcua_shows_what_stands():
    pytest.importorskip("asyncua")
    from tests.support.opcua_server import open_server, read

    with open_server() as server:
        assert read(server, "Drift", "DriftReason") == [False, ""]
        server.board.drift([ALARM.said()])
        wait_until(lambda: read(server, "Drift")[0], "the node stays false")
        assert "drift of light" in read(server, "DriftReason")[0]


def test_a_run_with_a_camera_says_it_keeps_it_and_says_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(drift_source, "BLOCK", 1)
    monkeypatch.setattr(drift_watch, "APART_S", 0.0)
    monkeypatch.setattr(drift_watch, "CORE_SHARE", 1e9)
    engine, log = write_tiny_engine(tmp_path), tmp_path / "i.db"
    line = ["--engine", str(engine), "--camera", "0", "--no-reconnect", "--log", str(log)]

    def run(*levels: int, words: tuple[str, ...] = ()) -> str:
        camera = FakeCamera().install(monkeypatch)

        def feed() -> None:
            for number, middle in enumerate(level for level in levels for _ in range(200)):
                camera.put(middle + number % 7)
                time.sleep(0.004)
            camera.put(None)

        feeder = threading.Thread(target=feed)
        feeder.start()
        run_command(infer.main, [*line, *words])
        feeder.join()
        return capsys.readouterr().err

    assert "camera:0: drift of light, from 9" in run(100, 140)  # 103 of red and green is 91 of grey
    assert (tmp_path / "i.drift.json").is_file()
    assert "(found before this start)" in run(140)
    assert "drift of" not in run(140, words=("--drift", "off"))
    found = [row for row in audit(log) if row["what"] == "drift of camera:0" and not row["old"]]
    assert found and found[0]["who"] == "drift watch"


def test_changes_carry_the_alarm():
    assert Change("began", replace(ALARM, recipe="plug")).alarm.text().startswith("camera:0 (plug): drift of light")
