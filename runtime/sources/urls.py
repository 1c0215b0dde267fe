"""Streams' addresses: what they consist of, and how they may stand in file names."""

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote

from runtime.common.addresses import host_of, is_host, without_secrets
from runtime.common.errors import UserError

URL_SCHEMES = frozenset({"http", "https", "rtmp", "rtp", "rtsp", "rtsps", "srt", "tcp", "udp"})


@dataclass(frozen=True)
class Url:
    """An address in its parts, the user and password as they are, not percent-encoded."""

    scheme: str
    user: str
    password: str
    host: str  # with its port
    rest: str  # path and query

    def __str__(self) -> str:
        """The address, the user and password percent-encoded where they must be."""
        return f"{self.scheme}://{self.sign_in}{self.host}{self.rest}"

    @property
    def sign_in(self) -> str:
        """User and password as they stand in an address, with the @ that ends them; empty where there are none."""
        if not (self.user or self.password):
            return ""
        return quote(self.user, safe="") + (f":{quote(self.password, safe='')}" if self.password else "") + "@"

    @property
    def without_sign_in(self) -> str:
        """The address without user and password."""
        return f"{self.scheme}://{self.host}{self.rest}"


def parse_url(text: str) -> Url:
    """Take an address apart. Raises `UserError`, which shows no password, for one that cannot be read in one way only.

    Characters of a password that mean something in an address, such as [ ] / ? #, are taken as they are where the
    address has a single @; with more than one the password must be percent-encoded.
    """
    scheme, _, after = text.partition("://")
    if scheme.lower() not in URL_SCHEMES:
        known = ", ".join(sorted(URL_SCHEMES))
        raise UserError(f"a stream's URL must begin with one of {known}", f"{scheme}://", "for a file give its path")
    at, end = host_of(after)
    host = after[at + 1 : end]
    if not is_host(host):
        cure = "in a password write %40 for @, %2F for /, %3F for ?, %23 for #, %25 for %"
        raise UserError(f"{without_secrets(text)} must be a stream's URL with a host", "none that is clear", cure)
    user, _, password = after[: max(at, 0)].partition(":")
    return Url(scheme.lower(), unquote(user), unquote(password), after[at:end] if at == 0 else host, after[end:])


def file_prefix(text: str) -> str:
    """Return `text` as a part of a file name."""
    return re.sub(r"[^A-Za-z0-9.-]+", "_", text).strip("_.")[:80]
