"""A bound on open connections, and an end to those that nobody uses; one more can always be made.

A watchdog has to be answered however many others are connected. So nobody is refused: above the bound a new
connection takes the place of the oldest that has asked nothing whole, else of the oldest that waits between two
requests, else of the oldest that is being answered.
"""

import asyncio
import socket
import struct
import time
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from runtime.serve.limits import Limits
from runtime.serve.security_headers import HEADERS

SEND_BYTES = 256 * 1024  # that the kernel holds for one visitor; by itself it takes megabytes


@dataclass
class _Connection:
    transport: asyncio.Transport
    since_s: float  # since when it is as it is: silent, idle or busy
    waiting: int = 0  # bytes that wait to be sent
    changed_s: float = 0.0


class Connections:
    """Makes the protocol of each new connection to `server`; call it as a protocol factory."""

    def __init__(self, server: web.Server, limits: Limits, **options: Any) -> None:
        self.server = server
        self._limits = limits
        self._options = options
        # each in the order in which they became so
        self._silent: dict[RequestHandler, _Connection] = {}
        self._idle: dict[RequestHandler, _Connection] = {}
        self._busy: dict[RequestHandler, _Connection] = {}
        self._all = (self._silent, self._idle, self._busy)

    def __call__(self) -> asyncio.Protocol:
        """Return the protocol of a new connection."""
        return _Visitor(self, self._options)

    def opened(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        """Take a new connection, in the place of another if there are too many."""
        if sum(map(len, self._all)) >= self._limits.connections:
            least = next(kind for kind in self._all if kind)
            self._end(next(iter(least)))
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BYTES)
        self._silent[handler] = _Connection(transport, time.monotonic())

    def closed(self, handler: RequestHandler) -> None:
        """Forget a connection."""
        for kind in self._all:
            kind.pop(handler, None)

    def asked(self, handler: RequestHandler) -> None:
        """Note that a request's head came over this connection, and is being answered."""
        self._move(handler, self._busy)

    def answered(self, handler: RequestHandler) -> None:
        """Note that the answer to it is made."""
        self._move(handler, self._idle)

    def _move(self, handler: RequestHandler, to: dict[RequestHandler, _Connection]) -> None:
        for kind in self._all:
            if connection := kind.pop(handler, None):
                connection.since_s = time.monotonic()
                to[handler] = connection

    def _end(self, handler: RequestHandler) -> None:
        for kind in self._all:
            if connection := kind.pop(handler, None):
                _drop(connection.transport)

    def sweep(self) -> None:
        """End connections that ask nothing, and those that do not take their answer."""
        now_s = time.monotonic()
        quiet = [h for kind in (self._silent, self._idle) for h, c in kind.items() if self._is_quiet(c, now_s)]
        stuck = [h for kind in self._all for h, c in kind.items() if self._is_stuck(c, now_s)]
        for handler in {*quiet, *stuck}:
            self._end(handler)

    def _is_quiet(self, connection: _Connection, now_s: float) -> bool:
        return now_s - connection.since_s > self._limits.idle_s and not connection.transport.get_write_buffer_size()

    def _is_stuck(self, connection: _Connection, now_s: float) -> bool:
        waiting = connection.transport.get_write_buffer_size()
        if waiting != connection.waiting or waiting == 0:
            connection.waiting, connection.changed_s = waiting, now_s
        return now_s - connection.changed_s > self._limits.stuck_s

    async def keep_sweeping(self) -> None:
        """Sweep until cancelled."""
        while True:
            await asyncio.sleep(self._limits.sweep_s)
            self.sweep()


def _drop(transport: asyncio.Transport) -> None:
    """Close a connection at once; without the option the kernel would keep what was not taken, for minutes."""
    if transport.get_write_buffer_size():
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


class _Visitor(RequestHandler):
    """One connection; what is no HTTP is refused in one line that repeats nothing of it."""

    __slots__ = ("_connections",)

    def __init__(self, connections: Connections, options: dict[str, Any]) -> None:
        super().__init__(connections.server, loop=asyncio.get_running_loop(), **options)
        self._connections = connections

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert isinstance(transport, asyncio.Transport)
        self._connections.opened(self, transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._connections.closed(self)
        super().connection_lost(exc)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what aiohttp itself refuses."""
        answer = super().handle_error(request, status, exc, message)
        if isinstance(answer, web.Response):
            answer.text = "this is no HTTP request that can be answered" if status < 500 else "an error of this program"
        answer.headers.update(HEADERS)
        return answer
