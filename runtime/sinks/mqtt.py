"""Verdicts to an MQTT broker, for the line's controller: a JSON line a frame, confirmed by the broker (QoS 1).

`TOPIC` gets the lines; `TOPIC/drift` holds the drift alarms that stand (retained); `TOPIC/status` holds "online" or
"offline" (retained; the broker itself says "offline" when this program dies).
"""

import contextlib
from collections.abc import Sequence
from typing import Any

from runtime.common.closing import Closing
from runtime.sinks.json_lines import as_json, encode
from runtime.sinks.judgement import Judgement
from runtime.sinks.mqtt_connection import Connection
from runtime.sinks.mqtt_options import MqttOptions
from runtime.sinks.queueing import Queueing


class MqttSink(Closing):
    """Publishes every judgement; reconnects by itself, for ever.

    While there is no broker the newest judgements wait in the queue. One that was published but not confirmed in
    time counts as failed, and may still arrive (QoS 1: at least once). So does one that the broker refuses, or that an
    old broker (MQTT 3.1.1) does not give back. Raises `UserError` as `Connection` does.
    """

    queueing = Queueing(capacity=256, keep="newest", pictures=False, answers_only=True)

    def __init__(self, options: MqttOptions) -> None:
        self.name = f"MQTT {options.host}:{options.port}/{options.topic}"
        self._connection = Connection(options)

    def write(self, judgement: Judgement) -> None:
        """Publish one line and wait for the broker's word. Raises `OSError` if it is refused, or none comes in time."""
        self._connection.wait()  # first: what is late by then is told as late
        self._connection.publish(encode(as_json(judgement.told())))

    def drift(self, alarms: Sequence[dict[str, Any]]) -> None:
        """Hold the drift alarms that stand on `TOPIC/drift` (retained), now and after each new connection."""
        self._connection.hold("drift", encode({"alarms": list(alarms)}))

    def interrupt(self) -> None:
        """End all waiting; what is not confirmed by then fails."""
        self._connection.interrupt()

    def close(self) -> None:
        """Say "offline" and disconnect; a second call does nothing."""
        with contextlib.suppress(OSError):
            self._connection.close()
