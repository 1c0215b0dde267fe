"""How an address with a password or a key may be shown: in logs, messages, on the page, in a printed configuration."""

import re
from typing import NamedTuple

HIDDEN = "***"
HIDDEN_IN_ADDRESS = re.compile(r":\*\*\*@|\?\*\*\*|=\*\*\*|://\*\*\*")  # where `marked` puts it
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://([^\s\"']*)")
# properties of GStreamer's elements that hold a password or a key: rtspsrc, souphttpsrc, srtsrc, ...
_PROPERTY = re.compile(r"\b([\w-]*(?:pw|password|passphrase|secret|token|key|cookies|headers))\s*=\s*(\"[^\"]*\"|\S+)")
_PIPELINE = "gst:"


class _Parts(NamedTuple):
    scheme: str
    user: str
    password: bool
    host: str  # with what stands between it and the user: the @
    path: str
    query: bool


def is_url(text: str) -> bool:
    """Return whether `text` begins as a URL does, whatever its scheme."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text) is not None


def host_of(after: str) -> tuple[int, int]:
    """Return where the @ before the host is in an address without its scheme (-1: nowhere), and where the host ends."""
    end = _end_of_host(after, 0)
    if "@" in after[:end] or is_host(after[:end]) or after.count("@") != 1:
        return after.rfind("@", 0, end), end
    at = after.index("@")  # a password with / ? or #
    return at, _end_of_host(after, at)


def _end_of_host(text: str, begin: int) -> int:
    found = re.compile(r"[/?#]").search(text, begin)
    return len(text) if found is None else found.start()


def is_host(text: str) -> bool:
    """Whether `text` is host[:port], also [IPv6]:port and the @:port of a multicast group that one listens to."""
    return re.fullmatch(r"@?(\[[0-9A-Fa-f:.%]+\]|[^\[\]:@\s]*)(:\d{0,5})?", text) is not None


def _parts(text: str) -> _Parts | None:
    """Take an address apart; None where all behind the scheme may be part of a password: an @ behind the host."""
    scheme, _, after = text.partition("://")
    at, end = host_of(after)
    if "@" in after[end:] or not is_host(after[at + 1 : end]):
        return None
    user, password, _ = after[: max(at, 0)].partition(":")
    path, *query = re.split(r"[?#]", after[end:], maxsplit=1)
    return _Parts(scheme, user, bool(password), after[at:end] if at >= 0 else after[:end], path, bool(query))


def without_secrets(text: str) -> str:
    """Return an address as it may stand in logs: without password and query, where cameras take keys."""
    parts = _parts(text)
    if parts is None:
        return f"{text.partition('://')[0]}://{HIDDEN}"
    return f"{parts.scheme}://{parts.user}{parts.host}{parts.path}"


def marked(text: str) -> str:
    """Return an address, a pipeline or any other value of an option with `HIDDEN` for what nobody may read in it."""
    if text.startswith(_PIPELINE):
        return _PROPERTY.sub(rf"\1={HIDDEN}", _URL.sub(lambda found: _marked(found[0]), text))
    if "://" not in text:  # a slash too few, or the scheme forgotten
        return re.sub(r":[^/:@\s]+@|:/.*@", f":{HIDDEN}@", text)
    return _marked(text) if is_url(text) else _URL.sub(lambda found: _marked(found[0]), text)


def _marked(text: str) -> str:
    parts = _parts(text)
    if parts is None:
        return without_secrets(text)
    user = parts.user + (f":{HIDDEN}" if parts.password else "")
    return f"{parts.scheme}://{user}{parts.host}{parts.path}" + (f"?{HIDDEN}" if parts.query else "")


def pipeline_without_secrets(pipeline: str) -> str:
    """Return a GStreamer pipeline as it may stand in logs: without the secrets of addresses, nor passwords and keys."""
    shown = _URL.sub(lambda found: without_secrets(found[0]), pipeline)
    return _PROPERTY.sub(lambda found: f"{found[1]}={HIDDEN}", shown)
