"""Where the OPC UA server listens, who may talk to it, and by which certificate it is known."""

from dataclasses import dataclass, field
from pathlib import Path

from runtime.common.errors import UserError
from runtime.common.listening import Address
from runtime.controller.opcua_nodes import START
from runtime.controller.trigger_address import node_id
from runtime.sinks.secret import read_user

PORT = 4840
USER_VARIABLE, PASSWORD_VARIABLE = "CFLOW_OPCUA_USER", "CFLOW_OPCUA_PASSWORD"
SHORTEST_PASSWORD = 12  # characters: what nobody guesses over a network
CERTIFICATE_NAME, KEY_NAME = "certificate.pem", "key.pem"


@dataclass(frozen=True)
class OpcuaOptions:
    """With a `user` everything is encrypted, and `certificate` and `key` are files (PEM); `make` them if missing.

    Without one it is unencrypted and open to everybody on this machine. `trigger` identifies the node that asks for a
    verdict, within the server's namespace.
    """

    address: Address
    user: str = ""
    password: str = field(default="", repr=False)
    certificate: Path | None = None
    key: Path | None = None
    make: bool = False
    trigger: str | int = START

    @classmethod
    def parse(
        cls,
        text: str,
        credentials: Path | None = None,
        folder: Path | None = None,
        certificate: Path | None = None,
        key: Path | None = None,
        trigger: str = "",
    ) -> "OpcuaOptions":
        """Read `[HOST:]PORT`, and user and password from `credentials` (two lines) or the environment.

        `folder` is where a certificate of its own is kept, `trigger` the id of the node that triggers. Raises
        `UserError` where others could connect without a password, for a short one, where the certificate is missing,
        and for a node that cannot trigger.
        """
        address, node = Address.parse(text, "--opcua", PORT), node_id(trigger)
        user, password = read_user(credentials, USER_VARIABLE, PASSWORD_VARIABLE)
        if (certificate is None) != (key is None):
            raise UserError("--opcua-certificate and --opcua-key belong together", "one of them", "give both")
        if not user:
            if not address.loopback:
                raise UserError(
                    f"--opcua on {address.host}, which other machines can reach, needs user and password",
                    "none",
                    f"give --opcua-credentials FILE or set {USER_VARIABLE} and {PASSWORD_VARIABLE}",
                )
            if folder is not None or certificate is not None:
                raise UserError("a certificate for --opcua needs user and password", "none", "--opcua-credentials FILE")
            return cls(address, trigger=node)
        if len(password) < SHORTEST_PASSWORD:
            raise UserError(
                f"the password for --opcua must have {SHORTEST_PASSWORD} or more characters",
                str(len(password)),
                "make one: openssl rand -hex 12",
            )
        if certificate is not None:
            return cls(address, user, password, certificate, key, trigger=node)
        if folder is None:
            raise UserError(
                "--opcua with a password is encrypted, and needs a certificate",
                "none",
                "give --opcua-folder DIR, where one is made, or --opcua-certificate and --opcua-key",
            )
        return cls(address, user, password, folder / CERTIFICATE_NAME, folder / KEY_NAME, make=True, trigger=node)
