"""A server of asyncua as its options say: where it listens, who it is, and what it takes of a stranger."""

import socket
from datetime import datetime, timezone

from asyncua import Server, ua

from runtime.common.listening import Address
from runtime.controller.certificate import Identity, make_if_missing, own_uri, read_identity
from runtime.controller.opcua_guard import GuardedServer, Users
from runtime.controller.opcua_options import OpcuaOptions

MESSAGE_BYTES = 1 << 20
CHUNK_BYTES = 1 << 16
NAME = "cflow-edge"


def new_server(options: OpcuaOptions) -> Server:
    """Return a server that is not set up yet."""
    return Server(iserver=GuardedServer(Users(options.user, options.password)))


async def set_up(server: Server, options: OpcuaOptions, version: str) -> None:
    """Prepare `server` to listen; `version` is the kit's.

    Raises `OSError` where it could not listen, `UserError` for the certificate.
    """
    identity = _identity(options)
    _see_whether_free(options.address)  # before the seconds that the rest takes
    await server.init()
    if identity is None:
        server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
        server.set_identity_tokens([ua.AnonymousIdentityToken])
    else:
        server.iserver.certificate, server.iserver.private_key = identity.certificate, identity.key
        server.set_security_policy([ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt])
        server.set_identity_tokens([ua.UserNameIdentityToken])
    await server.set_application_uri(own_uri() if identity is None else identity.uri)
    server.set_server_name(NAME)
    await server.set_build_info("urn:cflow-edge", NAME, NAME, version, "0", datetime.now(timezone.utc))
    server.limits.max_message_size = MESSAGE_BYTES
    server.limits.max_chunk_count = MESSAGE_BYTES // CHUNK_BYTES
    address = options.address
    host = f"[{address.host}]" if ":" in address.host else address.host
    server.set_endpoint(f"opc.tcp://{host}:{address.port}/")


def _identity(options: OpcuaOptions) -> Identity | None:
    """Return the certificate and its key; None for a server without encryption."""
    if options.certificate is None or options.key is None:
        return None
    if options.make:
        make_if_missing(options.certificate, options.key)
    return read_identity(options.certificate, options.key)


def _see_whether_free(address: Address) -> None:
    with socket.socket(socket.AF_INET6 if ":" in address.host else socket.AF_INET) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        trial.bind((address.host, address.port))
