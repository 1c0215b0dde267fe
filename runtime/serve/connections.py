"""A bound on open connections, and an end to those that nobody uses: file descriptors belong to the inspection."""

import asyncio
import time
from dataclasses import dataclass, field
from typing import cast

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

MOST = 128  # connections
ACCEPTING_S = 1.0  # from making a protocol to its connection: many are accepted in one go
SWEEP_S = 5.0
FIRST_REQUEST_S = 20.0  # for a connection to say what it wants
STUCK_S = 30.0  # without one byte taken of what waits to be sent


class _Refuse(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).abort()


@dataclass
class _Connection:
    transport: asyncio.Transport
    since_s: float = field(default_factory=time.monotonic)
    served: bool = False
    waiting: int = 0  # bytes that wait to be sent
    changed_s: float = 0.0


class Connections:
    """Makes the protocol of each new connection to `server`; call it as a protocol factory."""

    def __init__(self, server: web.Server, stuck_s: float = STUCK_S, first_request_s: float = FIRST_REQUEST_S) -> None:
        self.server = server
        self._stuck_s = stuck_s
        self._first_request_s = first_request_s
        self._known: dict[RequestHandler, _Connection] = {}
        self._made: list[tuple[RequestHandler, float]] = []  # the newest, perhaps not connected yet
        self.refused = 0
        self.ended = 0

    def __call__(self) -> asyncio.Protocol:
        """Return the protocol of a new connection; one above `MOST` is closed at once."""
        now_s = time.monotonic()
        self._made = [(h, made_s) for h, made_s in self._made if h.transport is None and now_s - made_s < ACCEPTING_S]
        if len(self.server.connections) + len(self._made) >= MOST:
            self.refused += 1
            return _Refuse()
        handler = self.server()
        self._made.append((handler, now_s))
        return handler

    def served(self, handler: RequestHandler) -> None:
        """Note that a whole request came over this connection."""
        if connection := self._know(handler):
            connection.served = True

    def _know(self, handler: RequestHandler) -> _Connection | None:
        if handler not in self._known and isinstance(handler.transport, asyncio.Transport):
            self._known[handler] = _Connection(handler.transport)
        return self._known.get(handler)

    def sweep(self) -> None:
        """End connections that never asked, and those that do not take their answer."""
        open_now = self.server.connections
        for gone in self._known.keys() - set(open_now):
            del self._known[gone]
        for connection in filter(None, map(self._know, open_now)):
            if self._is_idle(connection, time.monotonic()):
                connection.transport.abort()
                self.ended += 1

    def _is_idle(self, connection: _Connection, now_s: float) -> bool:
        waiting = connection.transport.get_write_buffer_size()
        if waiting != connection.waiting or waiting == 0:
            connection.waiting, connection.changed_s = waiting, now_s
        stuck = now_s - connection.changed_s > self._stuck_s
        silent = not connection.served and now_s - connection.since_s > self._first_request_s
        return stuck or silent

    async def keep_sweeping(self, every_s: float = SWEEP_S) -> None:
        """Sweep until cancelled."""
        while True:
            await asyncio.sleep(every_s)
            self.sweep()
