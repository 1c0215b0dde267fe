"""Triggers from an MQTT broker: each message on a topic asks for the verdict of a part.

The payload is the part id as plain text, or JSON: `{"part": "SN123", "source": "camera:0"}`, both optional. A message
without a part id is counted. What is refused is told on `TOPIC/refused`; the answers go where `--mqtt` says.
`TOPIC/status` holds "online" while triggers are taken, else "offline" (retained).
"""

import contextlib
import json
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from runtime.common.closing import Closing
from runtime.common.errors import UserError
from runtime.common.notices import say, say_once, worth_saying
from runtime.sinks.mqtt_client import KEEPALIVE_S, OLD_BROKER, QOS, new_client
from runtime.sinks.mqtt_options import MqttOptions
from runtime.triggers.message import parsed
from runtime.triggers.trigger import Trigger

GOODBYE_S = 1.0


class Subscription(Closing, ABC):
    """Subscribes to `topic` at the broker of `options`, again after each loss; what came meanwhile is not taken.

    A message that the broker kept (retained) is not taken either: it is of the past. `what` is taken, for a person;
    `option` names the topic on the command line, `example` is one. Raises `UserError` where the topic or paho-mqtt is
    not fit.
    """

    what = option = example = ""

    def __init__(self, options: MqttOptions, topic: str) -> None:
        if set(topic) & set("+#\0") or topic.startswith("$") or topic in ("", options.topic):
            raise UserError(f"{self.option} takes a topic of its own without + and #", repr(topic), self.example)
        self.name = f"MQTT {options.host}:{options.port}/{topic}"
        self.subscribed = threading.Event()
        self._topic, self._options = topic, replace(options, topic=topic)
        self._losses = 0
        self._closing = False
        self._connecting = threading.Lock()
        self._client = self._new_client(5)

    def _new_client(self, version: int) -> Any:
        client = new_client(self._options, version)
        client.on_connect, client.on_subscribe = self._on_connect, self._on_subscribe
        client.on_disconnect, client.on_message = self._on_disconnect, self._on_message
        return client

    def _connect(self) -> None:
        self._client.connect_async(self._options.host, self._options.port, keepalive=KEEPALIVE_S)
        self._client.loop_start()

    def _on_connect(self, client: Any, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        if not reason.is_failure:
            client.subscribe(self._topic, QOS)
        elif reason == OLD_BROKER:
            with self._connecting:
                if not self._closing:
                    client.disconnect()
                    self._client = self._new_client(4)
                    self._connect()
        else:
            say_once(f"{self.name}: the broker refused: {reason}")

    def _on_subscribe(self, client: Any, data: Any, number: int, reasons: Any, properties: Any) -> None:
        if any(reason.is_failure for reason in reasons):
            say_once(f"{self.name}: the broker refuses the subscription: {reasons[0]}")
            return
        if self._losses:
            say(f"{self.name}: {self.what}s are taken again")
        client.publish(self._options.status_topic, "online", QOS, retain=True)
        self.subscribed.set()
        self._ready(client)

    def _on_disconnect(self, client: Any, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        if self.subscribed.is_set() and not self._closing:
            self._losses += 1
            if worth_saying(self._losses):
                say(f"{self.name} is lost ({reason}); no {self.what} is taken until it is back ({self._losses} so far)")
        self.subscribed.clear()

    def _on_message(self, client: Any, data: Any, message: Any) -> None:
        if message.retain:
            return
        asked, refusal = self._asked(message.payload)
        if refusal:
            self._refuse(asked, refusal)

    def _refuse(self, asked: dict[str, str], refusal: str) -> None:
        """Tell why what was asked for is refused."""
        with contextlib.suppress(RuntimeError, ValueError):  # the connection has gone
            self._client.publish(f"{self._topic}/refused", json.dumps({**asked, "refused": refusal}).encode(), QOS)

    @abstractmethod
    def _asked(self, payload: bytes) -> tuple[dict[str, str], str]:
        """Return what a message asks for, and why it is refused; empty where it is not."""

    def _ready(self, client: Any) -> None:
        """Do what is to be done whenever messages are taken from now on."""

    def close(self) -> None:
        """Say "offline" and disconnect; a second call does nothing."""
        with self._connecting:
            again, self._closing = self._closing, True
        if self.subscribed.is_set() and not again:
            with contextlib.suppress(RuntimeError, ValueError):  # the connection has gone: the broker says it
                told = self._client.publish(self._options.status_topic, "offline", QOS, retain=True)
                told.wait_for_publish(GOODBYE_S)
        self._client.disconnect()
        self._client.loop_stop()


class MqttTriggers(Subscription):
    """Each message is a trigger."""

    what, option, example = "trigger", "--trigger mqtt:TOPIC", "mqtt:line1/trigger"

    def __init__(self, options: MqttOptions, topic: str) -> None:
        super().__init__(options, topic)
        self._take: Callable[[Trigger], str] = lambda trigger: ""

    def start(self, take: Callable[[Trigger], str]) -> None:
        """Connect, and pass triggers to `take` from the client's thread."""
        self._take = take
        self._connect()

    def _asked(self, payload: bytes) -> tuple[dict[str, str], str]:
        asked_s = time.monotonic()
        part = ""
        try:
            part, source = parsed(payload)
            return {"part": part}, self._take(Trigger(part, asked_s, "mqtt", source))
        except UserError as error:
            return {"part": part}, str(error)
