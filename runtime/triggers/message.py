"""What a message says that asks for a verdict: a part id as text, or a JSON object."""

import json

from runtime.common.errors import UserError
from runtime.triggers.trigger import part_id

MOST_BYTES = 4096  # of a message
FIELDS = ("part", "source")
SEND = 'send a part id as text, or {"part": "SN123"}'


def parsed(payload: bytes) -> tuple[str, str]:
    """Return the part id ("": counted) and the source ("": each) of a message. Raises `UserError` for another thing."""
    if len(payload) > MOST_BYTES:
        raise UserError(SEND, f"{len(payload)} bytes")
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        raise UserError(SEND, "no UTF-8") from None
    if not text.lstrip().startswith("{"):
        return part_id(text.rstrip("\r\n")), ""
    try:
        return from_object(json.loads(text))
    except (ValueError, RecursionError):
        raise UserError(SEND, ascii(text[:100])) from None


def from_object(asked: object) -> tuple[str, str]:
    """Return the part id and the source of an object that JSON gave. Raises `UserError` for what is no trigger."""
    if not isinstance(asked, dict) or asked.keys() - set(FIELDS):
        raise UserError(SEND, "another object")
    part, source = (asked.get(name, "") for name in FIELDS)
    if not (isinstance(part, str) and isinstance(source, str)):
        raise UserError(SEND, "another object")
    return part_id(part), source
