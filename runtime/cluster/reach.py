"""Whether anybody listens at an address: asked before a library is, which may try for minutes."""

import socket

from runtime.common.errors import UserError

PATIENCE_S = 10.0


def check_reachable(address: str, option: str) -> None:
    """Raise `UserError` where nobody listens at host:port, with or without a scheme; other addresses pass."""
    host, colon, port = address.rpartition("://")[2].rstrip("/").rpartition(":")
    if not (colon and port.isascii() and port.isdigit()):
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), PATIENCE_S).close()
    except (OSError, OverflowError) as error:
        found = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{option} {address} must answer", found, "check the address, and that it runs") from None
