"""Where the page is served, and who may ask for it there."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from runtime.common.errors import UserError
from runtime.common.files import read_secret_file
from runtime.common.listening import Address, is_loopback

__all__ = ["TOKEN_VARIABLE", "Address", "host_of", "is_loopback", "read_token", "require_token"]

TOKEN_VARIABLE = "CFLOW_TOKEN"
SHORTEST_TOKEN = 16  # characters: what nobody guesses over a network
HOST_HEADER = re.compile(r"(?:\[(?P<number>[0-9A-Fa-f:.]+)\]|(?P<name>[0-9A-Za-z._-]+))(?::[0-9]{1,5})?")


def host_of(header: str) -> str:
    """Return the host of a `Host` header's `host[:port]`; empty for what is none."""
    form = HOST_HEADER.fullmatch(header)
    return form["number"] or form["name"] if form else ""


def read_token(file: Path | None, environment: Mapping[str, str] = os.environ) -> str | None:
    """Return the token in `file`, else the one in `CFLOW_TOKEN`, else None.

    A command line would show it to everybody on the machine, so there is no such option. Raises `UserError` for a
    file that cannot be read and for a token that is short or not plain ASCII.
    """
    if file is None and TOKEN_VARIABLE not in environment:
        return None
    origin = TOKEN_VARIABLE if file is None else str(file)
    try:
        token = (environment[TOKEN_VARIABLE] if file is None else read_secret_file(file)).strip()
    except OSError as error:
        raise UserError(f"{origin} must hold a token", str(error), "openssl rand -hex 24 > FILE") from None
    plain = token.isascii() and token.isprintable() and " " not in token
    if len(token) < SHORTEST_TOKEN or not plain:
        found = f"{len(token)} characters" if plain else "other characters"
        raise UserError(
            f"the token in {origin} must be {SHORTEST_TOKEN} or more ASCII characters without spaces",
            found,
            "make one: openssl rand -hex 24",
        )
    return token


def require_token(address: Address, token: str | None) -> None:
    """Raise `UserError` where others could look in without having to say who they are."""
    if token is None and not address.loopback:
        raise UserError(
            f"serving on {address.host}, which other machines can reach, needs a token",
            "none",
            f"give --token-file FILE or set {TOKEN_VARIABLE} (make one: openssl rand -hex 24)",
        )
