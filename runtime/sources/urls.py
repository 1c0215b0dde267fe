"""Streams' addresses: what they consist of, and how they may stand in logs, file names and messages."""

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote

from runtime.common.errors import UserError

URL_SCHEMES = frozenset({"http", "https", "rtmp", "rtp", "rtsp", "rtsps", "srt", "tcp", "udp"})
HIDDEN = "***"
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://([^\s\"']*)")
# properties of GStreamer's elements that hold a password or a key: rtspsrc, souphttpsrc, srtsrc, ...
_PROPERTY = re.compile(r"\b([\w-]*(?:pw|password|passphrase|secret|token|key|cookies|headers))\s*=\s*(\"[^\"]*\"|\S+)")


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


def is_url(text: str) -> bool:
    """Return whether `text` begins as a URL does, whatever its scheme."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text) is not None


def parse_url(text: str) -> Url:
    """Take an address apart. Raises `UserError`, which shows no password, for one that cannot be read in one way only.

    Characters of a password that mean something in an address, such as [ ] / ? #, are taken as they are where the
    address has a single @; with more than one the password must be percent-encoded.
    """
    scheme, _, after = text.partition("://")
    if scheme.lower() not in URL_SCHEMES:
        known = ", ".join(sorted(URL_SCHEMES))
        raise UserError(f"a stream's URL must begin with one of {known}", f"{scheme}://", "for a file give its path")
    at, end = _host_of(after)
    host = after[at + 1 : end]
    if not _is_host(host):
        cure = "in a password write %40 for @, %2F for /, %3F for ?, %23 for #, %25 for %"
        raise UserError(f"{without_secrets(text)} must be a stream's URL with a host", "none that is clear", cure)
    user, _, password = after[: max(at, 0)].partition(":")
    return Url(scheme.lower(), unquote(user), unquote(password), after[at:end] if at == 0 else host, after[end:])


def _host_of(after: str) -> tuple[int, int]:
    """Return where the @ before the host is in an address without its scheme (-1: nowhere), and where the host ends."""
    end = _end_of_host(after, 0)
    if "@" in after[:end] or _is_host(after[:end]) or after.count("@") != 1:
        return after.rfind("@", 0, end), end
    at = after.index("@")  # a password with / ? or #
    return at, _end_of_host(after, at)


def _end_of_host(text: str, begin: int) -> int:
    found = re.compile(r"[/?#]").search(text, begin)
    return len(text) if found is None else found.start()


def _is_host(text: str) -> bool:
    """Whether `text` is host[:port], also [IPv6]:port and the @:port of a multicast group that one listens to."""
    return re.fullmatch(r"@?(\[[0-9A-Fa-f:.%]+\]|[^\[\]:@\s]*)(:\d{0,5})?", text) is not None


def without_secrets(text: str) -> str:
    """Return an address as it may stand in logs: without password and query, where cameras take keys.

    Where it has an @ behind its host, all may be part of a password, and nothing is shown.
    """
    scheme, _, after = text.partition("://")
    at, end = _host_of(after)
    if "@" in after[end:] or not _is_host(after[at + 1 : end]):
        return f"{scheme}://{HIDDEN}"
    user = after[: max(at, 0)].partition(":")[0]
    path = re.split(r"[?#]", after[end:], maxsplit=1)[0]
    return f"{scheme}://{user}{after[at:end] if at >= 0 else after[:end]}{path}"


def pipeline_without_secrets(pipeline: str) -> str:
    """Return a GStreamer pipeline as it may stand in logs: without the secrets of addresses, nor passwords and keys."""
    shown = _URL.sub(lambda found: without_secrets(found[0]), pipeline)
    return _PROPERTY.sub(lambda found: f"{found[1]}={HIDDEN}", shown)


def file_prefix(text: str) -> str:
    """Return `text` as a part of a file name."""
    return re.sub(r"[^A-Za-z0-9.-]+", "_", text).strip("_.")[:80]
