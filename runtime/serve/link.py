"""Messages between an inspection and the process of its page: a JSON object and bytes, over a pair of sockets.

JSON and not pickles: the process that strangers talk to can say nothing to the inspection but data.
"""

import asyncio
import json
import socket
import struct
from typing import Any

Message = dict[str, Any]
SIZES = struct.Struct("!II")  # of the object's text and of the bytes


def pack(message: Message, body: bytes = b"") -> bytes:
    """Return a message as it is sent. Raises `ValueError` for numbers that JSON has not."""
    text = json.dumps(message, allow_nan=False).encode()
    return SIZES.pack(len(text), len(body)) + text + body


def receive(link: socket.socket) -> tuple[Message, bytes] | None:
    """Wait for a message and return it; None once the other side has gone."""
    try:
        text_size, body_size = SIZES.unpack(_exactly(link, SIZES.size))
        return json.loads(_exactly(link, text_size)), _exactly(link, body_size)
    except (EOFError, OSError):
        return None


def _exactly(link: socket.socket, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        part = link.recv(min(size - len(parts), 1 << 20))
        if not part:
            raise EOFError
        parts += part
    return bytes(parts)


async def receive_async(reader: asyncio.StreamReader) -> tuple[Message, bytes] | None:
    """Wait for a message and return it; None once the other side has gone."""
    try:
        text_size, body_size = SIZES.unpack(await reader.readexactly(SIZES.size))
        return json.loads(await reader.readexactly(text_size)), await reader.readexactly(body_size)
    except (asyncio.IncompleteReadError, OSError):
        return None
