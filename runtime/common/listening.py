"""Where a server of ours listens: the page, and what a controller talks to."""

import ipaddress
from dataclasses import dataclass

from runtime.common.errors import UserError

LOOPBACK_NAME = "localhost"
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True)
class Address:
    """A host to listen on and its TCP port; port 0 takes any that is free."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str, option: str = "--serve", example: int = 8080) -> "Address":
        """Read the `[HOST:]PORT` of `option`: `8080` (this machine only), `0.0.0.0:8080`, `[::]:8080`.

        Raises `UserError` for another form, with `example` as a port that would do.
        """
        host, colon, port = text.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        wrong = colon and not host
        if wrong or not (port.isascii() and port.isdigit()) or int(port) > 65535:
            raise UserError(f"{option} takes [HOST:]PORT", repr(text), f"for example {example}, or 0.0.0.0:{example}")
        return cls("127.0.0.1" if host in ("", LOOPBACK_NAME) else host, int(port))

    @property
    def loopback(self) -> bool:
        """Whether only this machine itself can connect."""
        return is_loopback(self.host)

    def url(self) -> str:
        """Return the address for a browser's address line."""
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}/"


def is_loopback(host: str) -> bool:
    """Return whether `host` (a name or a number, without port) means this machine itself.

    Of names only `localhost` does: another may be anybody's, and may point elsewhere a minute later.
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == LOOPBACK_NAME
