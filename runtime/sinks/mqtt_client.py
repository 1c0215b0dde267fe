"""A client of paho-mqtt, set up."""

from typing import Any

from runtime.common.errors import UserError
from runtime.sinks.mqtt_options import MqttOptions

QOS = 1
KEEPALIVE_S = 10  # a broker that is silent for one and a half times as long is given up
CONNECT_TIMEOUT_S = 5.0
RECONNECT_S = (1, 30)  # the first wait and the longest
OLD_BROKER = "Unsupported protocol version"  # the reason of a refusal by one that speaks only 3.1.1
UNCONFIRMED = 20  # messages that paho keeps and sends again after a reconnect


def new_client(options: MqttOptions, version: int) -> Any:
    """Return a client that speaks MQTT 5 or, with `version` 4, 3.1.1; it is not connected.

    Raises `UserError` where paho-mqtt is missing or the certificates cannot be read.
    """
    try:
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
    except ImportError as error:
        raise UserError("--mqtt needs paho-mqtt", str(error), "pip install 'cflow-edge[mqtt]'") from None
    client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion(version))
    client.connect_timeout = CONNECT_TIMEOUT_S
    client.reconnect_delay_set(*RECONNECT_S)
    client.max_queued_messages_set(UNCONFIRMED)
    client.will_set(options.status_topic, "offline", QOS, retain=True)
    if options.user:
        client.username_pw_set(options.user, options.password or None)
    if options.tls:
        try:
            client.tls_set(ca_certs=None if options.ca is None else str(options.ca))
        except OSError as error:
            raise UserError("--mqtt-ca must hold certificates (PEM)", str(error)) from None
    return client
