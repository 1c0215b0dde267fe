"""Verdicts to an MQTT broker, for the line's controller: a JSON line a frame, confirmed by the broker (QoS 1).

`TOPIC` gets the lines; `TOPIC/status` holds "online" or "offline" (retained; the broker itself says "offline" when
this program dies).
"""

import contextlib
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from runtime.common.closing import Closing
from runtime.common.errors import UserError
from runtime.sinks.json_lines import as_json, encode
from runtime.sinks.judgement import Judgement
from runtime.sinks.queueing import Queueing
from runtime.sinks.secret import read_secret

PORTS = {"mqtt": 1883, "mqtts": 8883}
USER_VARIABLE, PASSWORD_VARIABLE = "CFLOW_MQTT_USER", "CFLOW_MQTT_PASSWORD"
QOS = 1
KEEPALIVE_S = 10  # a broker that is silent for one and a half times as long is given up
CONNECT_TIMEOUT_S = 5.0
RECONNECT_S = (1, 30)  # the first wait and the longest
CONFIRM_S = 5.0  # how long one line waits for a connection, and then for the broker's word
WAIT_STEP_S = 0.1  # how soon an interrupt is seen
UNCONFIRMED = 20  # lines that paho keeps and sends again after a reconnect


@dataclass(frozen=True)
class MqttOptions:
    """Where to publish: from `mqtt[s]://HOST[:PORT]/TOPIC`; `ca` is a file of trusted certificates (PEM)."""

    host: str
    port: int
    topic: str
    tls: bool = False
    user: str = ""
    password: str = field(default="", repr=False)
    ca: Path | None = None

    @classmethod
    def parse(cls, url: str, credentials: Path | None = None, ca: Path | None = None) -> "MqttOptions":
        """Read `url`, and user and password from `credentials` (two lines) or the environment.

        Raises `UserError` for another form, a password in the URL (every process can read a command line), or a
        topic that cannot be published to.
        """
        form = "an MQTT address is mqtt://HOST[:PORT]/TOPIC (mqtts:// for TLS)"
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise UserError(form, str(error)) from None
        if "@" in parts.netloc:
            cure = f"put them into {USER_VARIABLE} and {PASSWORD_VARIABLE}, or a file for --mqtt-credentials"
            raise UserError("user and password do not belong on the command line", "them in the address", cure)
        topic = unquote(parts.path).strip("/")
        if parts.scheme not in PORTS or not host or parts.query or parts.fragment:
            raise UserError(form, repr(url), "for example mqtt://192.168.0.10/line1/verdicts")
        if not topic or set(topic) & set("+#\0") or topic.startswith("$") or len(topic.encode()) > 1000:
            raise UserError("a topic to publish to is a path without + and #", repr(topic), form)
        tls = parts.scheme == "mqtts"
        if ca is not None and not (tls and ca.is_file()):
            raise UserError("--mqtt-ca is a PEM file, for an mqtts:// address", f"{ca} for {parts.scheme}://")
        user, password = read_credentials(credentials)
        return cls(host, port or PORTS[parts.scheme], topic, tls, user, password, ca)


def read_credentials(path: Path | None) -> tuple[str, str]:
    """Return user and password from a file of two lines or, without one, from the environment ("" where not set)."""
    if path is None:
        user, password = ("".join(read_secret(None, name)) for name in (USER_VARIABLE, PASSWORD_VARIABLE))
        return user, password
    lines = read_secret(path, "")
    if not 1 <= len(lines) <= 2 or not lines[0]:
        raise UserError(f"{path} must hold two lines, user and password", f"{len(lines)} lines")
    return lines[0], "".join(lines[1:])


class MqttSink(Closing):
    """Publishes every judgement; reconnects by itself, for ever.

    While there is no broker the newest judgements wait in the queue. One that was published but not confirmed in
    time counts as failed, and may still arrive (QoS 1: at least once). Raises `UserError` where paho-mqtt is missing or
    the certificates cannot be read; a broker that cannot be reached is no error, it may come.
    """

    queueing = Queueing(capacity=256, keep="newest", pictures=False)

    def __init__(self, options: MqttOptions) -> None:
        self.name = f"MQTT {options.host}:{options.port}/{options.topic}"
        self._options = options
        self._interrupted = threading.Event()
        self._connected = threading.Event()
        self._trouble = "not connected yet"
        self._client = self._open()
        self._client.connect_async(options.host, options.port, keepalive=KEEPALIVE_S)
        self._client.loop_start()

    def _open(self) -> Any:
        try:
            from paho.mqtt.client import Client
            from paho.mqtt.enums import CallbackAPIVersion
        except ImportError as error:
            raise UserError("--mqtt needs paho-mqtt", str(error), "pip install 'cflow-edge[mqtt]'") from None
        options = self._options
        client = Client(CallbackAPIVersion.VERSION2)
        client.connect_timeout = CONNECT_TIMEOUT_S
        client.reconnect_delay_set(*RECONNECT_S)
        client.max_queued_messages_set(UNCONFIRMED)
        client.will_set(self._status_topic, "offline", QOS, retain=True)
        if options.user:
            client.username_pw_set(options.user, options.password or None)
        if options.tls:
            try:
                client.tls_set(ca_certs=None if options.ca is None else str(options.ca))
            except OSError as error:
                raise UserError("--mqtt-ca must hold certificates (PEM)", str(error)) from None
        client.on_connect = self._on_connect
        client.on_connect_fail = self._on_connect_fail
        client.on_disconnect = self._on_disconnect
        return client

    @property
    def _status_topic(self) -> str:
        return f"{self._options.topic}/status"

    def _on_connect(self, client: Any, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            self._trouble = f"the broker refused: {reason}"
            return
        client.publish(self._status_topic, "online", QOS, retain=True)
        self._connected.set()

    def _on_connect_fail(self, client: Any, data: Any) -> None:
        self._trouble = str(sys.exc_info()[1] or "no connection")  # paho calls this while it handles the error

    def _on_disconnect(self, client: Any, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        if self._connected.is_set():
            self._trouble = f"connection lost: {reason}"
        self._connected.clear()

    def write(self, judgement: Judgement) -> None:
        """Publish one line and wait for the broker's word. Raises `OSError` if there is none in time."""
        payload = encode(as_json(judgement))
        if not self._wait(self._connected.wait, self._connected.is_set):
            raise OSError(f"no broker: {self._trouble}")
        self._publish(self._options.topic, payload)

    def _publish(self, topic: str, payload: bytes | str, retain: bool = False) -> None:
        message = self._client.publish(topic, payload, QOS, retain)
        try:
            confirmed = self._wait(message.wait_for_publish, message.is_published)
        except (RuntimeError, ValueError) as error:  # how paho says that the connection has gone, or its queue is full
            raise OSError(f"not published: {error}") from None
        if not confirmed:
            raise OSError(f"not confirmed by the broker within {CONFIRM_S:g} s")

    def _wait(self, wait: Callable[[float], Any], done: Callable[[], bool]) -> bool:
        """Call `wait` with a short time until `done()`, up to `CONFIRM_S` and not beyond an interrupt."""
        deadline = time.monotonic() + CONFIRM_S
        while not done() and not self._interrupted.is_set() and time.monotonic() < deadline:
            wait(WAIT_STEP_S)
        return done()

    def interrupt(self) -> None:
        """End all waiting; what is not confirmed by then fails."""
        self._interrupted.set()

    def close(self) -> None:
        """Say "offline" and disconnect; a second call does nothing."""
        if self._connected.is_set():
            with contextlib.suppress(OSError):
                self._publish(self._status_topic, "offline", retain=True)
        self._client.disconnect()
        self._client.loop_stop()
