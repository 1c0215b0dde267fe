"""Where to publish, and as whom."""

from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from runtime.common.addresses import marked
from runtime.common.errors import UserError
from runtime.sinks.secret import read_user

PORTS = {"mqtt": 1883, "mqtts": 8883}
USER_VARIABLE, PASSWORD_VARIABLE = "CFLOW_MQTT_USER", "CFLOW_MQTT_PASSWORD"


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

    @property
    def status_topic(self) -> str:
        """Where "online" and "offline" stand."""
        return f"{self.topic}/status"

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
        except ValueError:  # its text may hold a part of the password
            raise UserError(form, repr(marked(url))) from None
        if "@" in parts.netloc:
            cure = f"put them into {USER_VARIABLE} and {PASSWORD_VARIABLE}, or a file for --mqtt-credentials"
            raise UserError("user and password do not belong on the command line", "them in the address", cure)
        topic = unquote(parts.path).strip("/")
        if parts.scheme not in PORTS or not host or parts.query or parts.fragment:
            raise UserError(form, repr(marked(url)), "for example mqtt://192.168.0.10/line1/verdicts")
        if not topic or set(topic) & set("+#\0") or topic.startswith("$") or len(topic.encode()) > 1000:
            raise UserError("a topic to publish to is a path without + and #", repr(topic), form)
        tls = parts.scheme == "mqtts"
        if ca is not None and not (tls and ca.is_file()):
            raise UserError("--mqtt-ca is a PEM file, for an mqtts:// address", f"{ca} for {parts.scheme}://")
        user, password = read_user(credentials, USER_VARIABLE, PASSWORD_VARIABLE)
        return cls(host, port or PORTS[parts.scheme], topic, tls, user, password, ca)
