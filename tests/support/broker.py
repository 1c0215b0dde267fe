"""A real MQTT broker, a subscriber, and what stands before it where it shall be an old one."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from tests.support.waiting import wait_until

MOSQUITTO = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
needs_broker = pytest.mark.skipif(MOSQUITTO is None, reason="no mosquitto here (apt-get install mosquitto)")


class Broker:
    """A real mosquitto on loopback, which can be killed and started again on the same port."""

    def __init__(self, folder: Path, *settings: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._configuration = folder / "mosquitto.conf"
        lines = [f"listener {self.port} 127.0.0.1", *(settings or ("allow_anonymous true",))]
        self._configuration.write_text("\n".join([*lines, "persistence false", "user root"]) + "\n")
        self.start()

    def start(self) -> None:
        command = [str(MOSQUITTO), "-c", str(self._configuration)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        def answers() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.port)) == 0

        wait_until(answers, "mosquitto does not answer")

    def stand_still(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(120)

    def url(self, topic: str = "line1/verdicts") -> str:
        return f"mqtt://127.0.0.1:{self.port}/{topic}"


class OldBroker:
    """Lets clients of MQTT 3.1.1 through to `broker`; others get the answer of a broker that knows nothing newer."""

    def __init__(self, broker: Broker, answer: bytes) -> None:
        self._broker, self._answer = broker, answer
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:  # closed
                return
            threading.Thread(target=self._talk, args=(client,), daemon=True).start()

    def _talk(self, client: socket.socket) -> None:
        first = client.recv(4096)
        level = first[first.index(b"MQTT") + 4]
        if level > 4:
            client.sendall(self._answer)
            client.close()
            return
        behind = socket.create_connection(("127.0.0.1", self._broker.port))
        behind.sendall(first)
        threading.Thread(target=_pass_on, args=(behind, client), daemon=True).start()
        _pass_on(client, behind)

    def url(self, topic: str = "line1/verdicts") -> str:
        return f"mqtt://127.0.0.1:{self.port}/{topic}"

    def close(self) -> None:
        self._server.close()


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


class Listener:
    """A subscriber of all topics."""

    def __init__(self, broker: Broker) -> None:
        mqtt = pytest.importorskip("paho.mqtt.client")
        self.got: list[tuple[str, bytes]] = []
        self._subscribed = threading.Event()
        self._client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
        self._client.on_connect = lambda client, *_: client.subscribe("#", 1)
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = lambda client, data, message: self.got.append((message.topic, message.payload))
        self._client.connect("127.0.0.1", broker.port)
        self._client.loop_start()
        assert self._subscribed.wait(30)

    def lines(self) -> list[dict]:
        return [json.loads(payload) for topic, payload in self.got if not topic.endswith("/status")]

    def frames(self) -> list[int]:
        return [line["frame"] for line in self.lines()]

    def states(self) -> list[bytes]:
        return [payload for topic, payload in self.got if topic.endswith("/status")]

    def stop(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()
