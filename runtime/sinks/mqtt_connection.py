"""A connection to an MQTT broker that comes back by itself, and knows what became of a message.

With MQTT 5 the broker's word on each message says whether it was taken. With 3.1.1, for brokers that have nothing
newer, it says "received" of those too that an access list or a size limit drops; there only a message's own return to
a subscriber shows that it was passed on.
"""

import contextlib
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from runtime.common.notices import say_once
from runtime.sinks.mqtt_client import KEEPALIVE_S, OLD_BROKER, QOS, RECONNECT_S, new_client
from runtime.sinks.mqtt_options import MqttOptions

CONFIRM_S = 5.0  # how long a connection is waited for, then the broker's word, then a message's return
WAIT_STEP_S = 0.1  # how soon an interrupt is seen
AROUND_BYTES = 10  # the most that a PUBLISH packet has besides its topic and payload
LOSSES = 2  # a message that ends the connection so often is given up, or it would end the next ones too


class Connection:
    """Publishes to the topic of `options`, and says on its status topic whether this program lives.

    Raises `UserError` as `new_client` does; a broker that cannot be reached is no error, it may come.
    """

    def __init__(self, options: MqttOptions) -> None:
        self.connected = threading.Event()
        self.trouble = "not connected yet"
        self._options = options
        self._interrupted = threading.Event()
        self._returned = threading.Event()
        self._awaited: bytes | None = None  # the payload that shall come back
        self._refused: dict[int, str] = {}  # what the broker said, by the message's number
        self._losses = 0
        self._checked = False  # whether a message has come back, or cannot
        self._pause_s = RECONNECT_S[0]
        self._held: dict[str, bytes] = {}  # what the broker keeps for us, by topic
        self._starting = threading.Lock()
        self._closed = False
        self._start(5)

    def _start(self, version: int) -> None:
        """Connect with a new client, which knows nothing of the messages before."""
        self._version, self._acknowledged, self._readable = version, False, True
        self._largest: int | None = None  # of a packet, in bytes
        self._status_number = 0
        self.connected.clear()
        self._client = client = new_client(self._options, version)
        client.on_connect, client.on_connect_fail = self._on_connect, self._on_connect_fail
        client.on_disconnect, client.on_message = self._on_disconnect, self._on_message
        client.on_publish, client.on_subscribe = self._on_publish, self._on_subscribe
        client.connect_async(self._options.host, self._options.port, keepalive=KEEPALIVE_S)
        client.loop_start()

    def _on_connect(self, client: Any, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        if client is not self._client:
            return
        self._acknowledged, self._pause_s = True, RECONNECT_S[0]
        if reason.is_failure:
            self.trouble = f"the broker refused: {reason}"
            if self._version == 5 and reason == OLD_BROKER:
                self._restart(4)
            return
        self._largest = getattr(properties, "MaximumPacketSize", None)
        if not self._checked or self._version != 5:
            client.subscribe(self._options.topic, QOS)
        self._status_number = client.publish(self._options.status_topic, "online", QOS, retain=True).mid
        for topic, payload in list(self._held.items()):
            client.publish(topic, payload, QOS, retain=True)
        self.connected.set()

    def hold(self, below: str, payload: bytes) -> None:
        """Have the broker keep `payload` on a topic below ours, now and after each new connection; waits for nobody."""
        topic = f"{self._options.topic}/{below}"
        self._held[topic] = payload
        if self.connected.is_set():
            with contextlib.suppress(RuntimeError, ValueError):  # paho's words for: gone just now; sent when it is back
                self._client.publish(topic, payload, QOS, retain=True)

    def _restart(self, version: int) -> None:
        """Go on with another client; paho would send what this one holds for ever."""
        with self._starting:
            if not self._closed:
                self._client.disconnect()
                self._start(version)

    def _on_connect_fail(self, client: Any, data: Any) -> None:
        self.trouble = str(sys.exc_info()[1] or "no connection")  # paho calls this while it handles the error

    def _on_disconnect(self, client: Any, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        if client is not self._client:
            return
        if self.connected.is_set():
            self.trouble = f"connection lost: {reason}"
            self._losses += 1
        self.connected.clear()
        if not self._acknowledged:  # old brokers end a connection that they do not understand
            self.trouble = f"the broker ended the connection: {reason}"
            self._interrupted.wait(self._pause_s)
            self._pause_s = min(2 * self._pause_s, RECONNECT_S[1])
            self._restart(4 if self._version == 5 else 5)

    def _on_publish(self, client: Any, data: Any, number: int, reason: Any, properties: Any) -> None:
        if client is self._client and reason.is_failure:
            self._refused[number] = str(reason)
            if number == self._status_number:
                say_once(f"MQTT: the broker refuses {self._options.status_topic}: {reason}")

    def _on_subscribe(self, client: Any, data: Any, number: int, reasons: Any, properties: Any) -> None:
        self._readable = not any(reason.is_failure for reason in reasons)

    def _on_message(self, client: Any, data: Any, message: Any) -> None:
        if message.payload == self._awaited:
            self._returned.set()

    def wait(self) -> None:
        """Wait for a broker. Raises `OSError` where there is none in time."""
        if not self._wait(self.connected.wait, self.connected.is_set):
            raise OSError(f"no broker: {self.trouble}")

    def publish(self, payload: bytes) -> None:
        """Publish one line and see that it was taken. Raises `OSError` if it was not, or nobody knows in time."""
        self.wait()
        self._returned.clear()
        self._awaited = payload
        self._send(self._options.topic, payload)
        if self._version != 5:
            self._see_return("it says 'received' of what it drops, too: use a broker with MQTT 5, or let the account")
        elif not self._checked:
            self._checked = True
            try:
                self._see_return("it drops them, or the account may not")
            except OSError as error:
                if self._readable and not self._interrupted.is_set():  # or the account is meant to publish only
                    say_once(f"MQTT: the broker takes lines, but {error}")
            self._client.unsubscribe(self._options.topic)

    def _see_return(self, cure: str) -> None:
        if not (self._readable and self._wait(self._returned.wait, self._returned.is_set)):
            topic = self._options.topic
            raise OSError(f"the line did not come back from the broker; {cure} read {topic}")

    def _send(self, topic: str, payload: bytes, retain: bool = False) -> None:
        size = len(topic.encode()) + len(payload) + AROUND_BYTES
        if self._largest is not None and size > self._largest:
            raise OSError(f"a line of {len(payload)} bytes; the broker takes {self._largest} with the topic")
        self._refused.clear()
        losses, client = self._losses, self._client
        message = client.publish(topic, payload, QOS, retain)
        try:
            confirmed = self._wait(
                message.wait_for_publish, lambda: message.is_published() or self._losses - losses >= LOSSES
            )
            confirmed = confirmed and message.is_published()
        except (RuntimeError, ValueError) as error:  # how paho says that the connection has gone, or its queue is full
            raise OSError(f"not published: {error}") from None
        if self._losses - losses >= LOSSES and client is self._client:
            self._restart(self._version)
            raise OSError(f"the broker ends the connection at a line of {len(payload)} bytes: {self.trouble}")
        if not confirmed:
            raise OSError(f"not confirmed by the broker within {CONFIRM_S:g} s")
        if (reason := self._refused.pop(message.mid, "")) and client is self._client:
            raise OSError(f"the broker refused the line: {reason}")

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
        """Say "offline" and disconnect; a second call does nothing. Raises `OSError` if it cannot be said."""
        try:
            if self.connected.is_set():
                self._send(self._options.status_topic, b"offline", retain=True)
        finally:
            self._interrupted.set()
            with self._starting:
                self._closed = True
            self._client.disconnect()
            self._client.loop_stop()
            self.connected.clear()
