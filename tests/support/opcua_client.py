"""An OPC UA client for tests: asyncua's own, with a certificate where the server wants encryption."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from asyncua import Client
from asyncua.crypto import cert_gen
from cryptography.x509.oid import ExtendedKeyUsageOID

from runtime.controller.opcua_nodes import NAMESPACE, ROOT

URI = "urn:test:client"


class Line:
    """The nodes of a server, by their names below `ROOT`."""

    def __init__(self, client: Client, index: int) -> None:
        self.client, self.index = client, index

    def node(self, name: str = "") -> Any:
        return self.client.get_node(f"ns={self.index};s={ROOT}{'.' if name else ''}{name}")

    async def read(self, *names: str) -> list[Any]:
        """Read several nodes by one request."""
        return await self.client.read_values([self.node(name) for name in names])

    async def inspect(self, part: Any) -> list[Any]:
        return await self.node().call_method(f"{self.index}:Inspect", part)


@contextlib.asynccontextmanager
async def connected(
    port: int, folder: Path | None = None, user: str = "", password: str = "", mode: str = "SignAndEncrypt"
) -> AsyncIterator[Line]:
    """Connect; with `folder`, which gets the client's certificate, encrypted or only signed."""
    client = Client(f"opc.tcp://127.0.0.1:{port}/", timeout=30)
    if folder is not None:
        certificate, key = folder / "client.der", folder / "client.pem"
        usage = [ExtendedKeyUsageOID.CLIENT_AUTH]
        await cert_gen.setup_self_signed_certificate(key, certificate, URI, "host", usage, {})
        client.application_uri = URI
        await client.set_security_string(f"Basic256Sha256,{mode},{certificate},{key}")
    if user:
        client.set_user(user)
        client.set_password(password)
    async with client:
        yield Line(client, await client.get_namespace_index(NAMESPACE))
        await asyncio.sleep(0)
