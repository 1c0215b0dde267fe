"""A camera that its own line triggers, while the parts' ids come from elsewhere: by every way, through real clients."""

import asyncio
import contextlib
import json
import re
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest

from runtime.controller import modbus_map
from runtime.controller.board import Board, Limits
from runtime.serve.http_triggers import HttpTriggers
from runtime.triggers.trigger import Trigger
from tests.support.broker import Broker, Listener, needs_broker
from tests.support.controlled_source import ControlledSource
from tests.support.genicam import gv_camera, needs_gv_camera
from tests.support.paths import ROOT
from tests.support.tiny_engine import write_tiny_engine
from tests.support.triggered_run import LONG
from tests.support.waiting import wait_until

NAMED = replace(LONG, each_frame=True, named=True)
PATIENT = Limits(safe_after_s=600.0, valid_s=600.0)


@contextlib.contextmanager
def by_http(running, folder):
    triggers = HttpTriggers(running.orders, lambda: 1)
    triggers.start(running.orders.take)
    yield lambda part: triggers.ask(part, "", time.monotonic(), False)


@contextlib.contextmanager
def by_mqtt(running, folder):
    from runtime.inputs.mqtt import MqttTriggers
    from runtime.sinks.mqtt_options import MqttOptions

    broker = Broker(folder)
    listener = Listener(broker)
    try:
        with MqttTriggers(MqttOptions.parse(broker.url()), "line1/part") as triggers:
            triggers.start(running.orders.take)
            assert triggers.subscribed.wait(120)
            yield lambda part: listener._client.publish("line1/part", part, 1).wait_for_publish(30)
    finally:
        listener.stop()
        broker.kill()


@contextlib.contextmanager
def by_opcua(running, folder):
    pytest.importorskip("asyncua")
    from runtime.controller.opcua import OpcuaServer
    from runtime.controller.opcua_nodes import About
    from runtime.controller.opcua_options import OpcuaOptions
    from tests.support.opcua_client import connected

    async def give(port, part):
        async with connected(port) as line:
            await line.node("Trigger.PartId").write_value(part)
            start = line.client.get_node("ns=2;s=Line1.PartGiven")
            await start.write_value(True)
            await start.write_value(False)

    options = OpcuaOptions.parse("0", trigger="ns=2;s=Line1.PartGiven")
    with OpcuaServer(options, Board(["cam"], PATIENT), About()) as server:
        server.triggers["opcua"].start(running.orders.take)
        yield lambda part: asyncio.run(give(server.address.port, part))


@contextlib.contextmanager
def by_modbus(running, folder):
    client_of = pytest.importorskip("pymodbus.client").ModbusTcpClient
    from runtime.controller.modbus import ModbusOptions, ModbusServer

    with ModbusServer(ModbusOptions.parse("0", trigger="100"), Board(["cam"], PATIENT)) as server:
        server.triggers["modbus"].start(running.orders.take)

        def give(part):
            with client_of("127.0.0.1", port=server.address.port, timeout=20) as client:
                client.write_registers(modbus_map.TRIGGER_PART, modbus_map.text_registers(part))
                client.write_coil(100, True)
                client.write_coil(100, False)

        yield give


@pytest.mark.parametrize("way", [by_http, pytest.param(by_mqtt, marks=needs_broker), by_opcua, by_modbus])
def test_an_id_given_before_the_exposure_is_its_frames_whatever_way_it_comes(run, tmp_path, way, capfd):
    camera = ControlledSource("cam", True)
    running = run([camera], NAMED)

    def given(*parts):
        for part in parts:
            give(part)
        wait_until(lambda: len(running.orders._ids["cam"]) == len(parts))

    with way(running, tmp_path) as give:
        for number, parts in enumerate((("SN1",), ("SN2",), (), ("SN4", "SN5"), ("SN6",))):
            given(*parts)
            camera.put(10 * number)
            running.wait(number + 1)
    found = [(judgement.trigger.part, judgement.trigger.origin) for judgement in running.kept.judgements]
    assert found == [(part, "camera") for part in ("SN1", "SN2", "1", "SN5", "SN6")]
    counts = running.orders.counts()
    assert (counts.taken, counts.unnamed, counts.unused) == (5, 1, 1) and counts.complete
    assert "no part's id was given for a frame, which is counted as 1" in capfd.readouterr().err


def test_who_gives_an_id_over_http_may_wait_for_its_verdict(run):
    camera = ControlledSource("cam", True)
    running = run([camera], NAMED)
    triggers = HttpTriggers(running.orders, lambda: 1)
    triggers.start(running.orders.take)
    running.inspection.add(triggers)
    said = []
    waiting = threading.Thread(target=lambda: said.append(triggers.ask("SN1", "", time.monotonic(), True)))
    waiting.start()
    wait_until(lambda: len(running.orders._ids["cam"]) == 1)
    camera.put(200)
    waiting.join(120)
    [(status, answer)] = said
    assert (status, answer["part"], answer["verdict"]) == (200, "SN1", "anomalous")
    assert answer["answers"][0]["trigger"] == "camera"


def test_a_controller_that_gave_the_id_sees_busy_until_the_frame_is_judged(run):
    from runtime.controller.asking import Asking, Handshake
    from runtime.controller.board import Board

    camera, board, asking = ControlledSource("cam", True), Board(["cam"]), Asking("modbus", ["cam"])

    class Server:
        def offer(self, judgement):
            asking.answered(judgement.source, board.put(judgement))

    running = run([camera], NAMED, receivers=[Server()])
    asking.start(running.orders.take)
    asking.write(True, "SN1")
    assert asking.handshake == Handshake(busy=True)
    running.orders.take(Trigger("", time.monotonic(), "http"))  # another's: newer, so it takes the frame
    camera.put(20)
    running.wait(1)
    assert asking.handshake.busy
    asking.write(False, "")
    asking.write(True, "SN2")
    camera.put(20)
    wait_until(lambda: asking.handshake == Handshake(done=True))
    assert board.shown()[0].part == "SN2"


@needs_gv_camera
def test_parts_of_a_real_camera_get_the_ids_that_a_controller_gave(tmp_path):
    """Aravis' camera as its own master: each of its pictures is a part, some of which a controller names."""
    client_of = pytest.importorskip("pymodbus.client").ModbusTcpClient
    engine, lines, said = write_tiny_engine(tmp_path), tmp_path / "lines.jsonl", tmp_path / "said"
    words = ["--engine", engine, "--camera-size", "64x48", "--camera-fps", "5", "--json-file", lines, "--modbus", "0"]
    words += ["--trigger", "camera", "--part-from", "modbus:100", "--deadline", "5000", "--trigger-queue", "50"]
    given = [f"SN{number}" for number in range(8)]
    with gv_camera("CF08") as camera, said.open("wb") as told:
        command = [sys.executable, "-m", "runtime.infer", "--camera", f"genicam:{camera.id}", *map(str, words)]
        process = subprocess.Popen(command, cwd=ROOT, stdout=told, stderr=told)
        try:
            listening = r"Modbus 127\.0\.0\.1:(\d+): listening"
            wait_until(lambda: re.search(listening, said.read_text()), "it does not listen")
            port = int(re.findall(listening, said.read_text())[0])
            with client_of("127.0.0.1", port=port, timeout=20) as client:
                wait_until(lambda: client.read_coils(0, count=6).bits[1])  # Ready
                for part in given:
                    client.write_registers(modbus_map.TRIGGER_PART, modbus_map.text_registers(part))
                    client.write_coil(100, True)
                    wait_until(lambda: client.read_coils(0, count=6).bits[3], "not done")
                    assert not client.read_coils(0, count=6).bits[4]  # refused
                    client.write_coil(100, False)
        finally:
            process.terminate()
            assert process.wait(120) == 143, said.read_text()
    found = [json.loads(line)["part"] for line in lines.read_text().splitlines()]
    assert [part for part in found if part.startswith("SN")] == given
    counted = [part for part in found if not part.startswith("SN")]
    assert counted == [str(number) for number in range(1, len(counted) + 1)]
    assert f"{len(found)} triggers: " in said.read_text()
    if counted:
        assert f", {len(counted)} without an id" in said.read_text()
