"""The web server beside an inspection: a sink that is given judgements and never slows what gives them."""

import asyncio
import contextlib
import logging
import socket
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from aiohttp import web

from runtime.common.closing import Closing
from runtime.common.errors import UserError
from runtime.detector import Detector
from runtime.serve.access import Access
from runtime.serve.address import Address, require_token
from runtime.serve.connections import Connections
from runtime.serve.guard import Guard
from runtime.serve.handlers import Handlers
from runtime.serve.history import History
from runtime.serve.metrics import Metrics
from runtime.serve.observed import Observed
from runtime.serve.page_state import PageState
from runtime.serve.pictures import Pictures
from runtime.serve.status import SinkStatus, SourceStatus, with_own_names
from runtime.serve.threshold_control import ThresholdControl
from runtime.serve.troubles import Troubles
from runtime.sinks.judgement import Judgement

BODY_BYTES = 16 * 1024  # the largest body that an action may have
KEEP_ALIVE_S = 30.0
GOODBYE_S = 2.0  # for answers under way when the run ends
JOIN_S = 10.0


@dataclass(frozen=True)
class ServeOptions:
    """`token` None: no sign-in, possible on this machine's own addresses only.

    `health_after_s`: `/health` fails once the last judgement is older.
    """

    address: Address
    token: str | None = None
    health_after_s: float = 10.0


class Server(Closing):
    """Serves the page of `detector`, opened from `engine`, from a thread of its own; listens once it is made.

    `sources` gives the sources to show (see `SourceStatus.of`) and `deliveries` what the other sinks have counted
    (`SinkStatus.of`); both are called from the server's thread, about once a second. Raises `UserError` for an address
    that cannot be listened on, and for one that others can reach where there is no token.

    `offer` takes microseconds and raises nothing: the inspection's thread may call it itself, without a queue between.
    """

    name = "web page"

    def __init__(
        self,
        options: ServeOptions,
        detector: Detector,
        engine: Path,
        sources: Callable[[], Iterable[Any]] = tuple,
        deliveries: Callable[[], Iterable[Any]] = tuple,
    ) -> None:
        require_token(options.address, options.token)
        self._socket = _listen(options.address)
        self.address = Address(options.address.host, self._socket.getsockname()[1])
        self._sources = sources
        self._deliveries = deliveries
        self._live: dict[str, bool] = {}
        self._loop = asyncio.new_event_loop()
        self.troubles = Troubles()
        self.history = History()
        failed = partial(self.troubles.add, "picture")
        self.pictures = Pictures(detector.sidecar.score_maximum, self._is_live, self._ring, failed)
        self._handlers, self._guard = self._assemble(options, detector, engine)
        self._stop = asyncio.Event()
        self._closed = False
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self._thread.start()
        self._started.wait()

    def _assemble(self, options: ServeOptions, detector: Detector, engine: Path) -> tuple[Handlers, Guard]:
        access = Access(options.token)
        guard = Guard(self.address, access, self.troubles, f"cflow_session_{self.address.port}")
        observed = Observed(
            self.history,
            self.pictures,
            ThresholdControl(detector, engine),
            self._source_statuses,
            self._sink_statuses,
            options.health_after_s,
        )
        page_state = PageState(observed, detector, sign_in=not access.open)
        return Handlers(access, guard, observed, page_state, Metrics(observed, self.troubles.counts)), guard

    def _source_statuses(self) -> list[SourceStatus]:
        return with_own_names(SourceStatus.of(source) for source in self._sources())

    def _sink_statuses(self) -> list[SinkStatus]:
        return with_own_names(SinkStatus.of(counts) for counts in self._deliveries())

    def _is_live(self, name: str) -> bool:
        if name not in self._live:
            self._live[name] = any(status.live for status in self._source_statuses() if status.name == name)
        return self._live[name]

    def _ring(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._handlers.bell.ring)

    def offer(self, judgement: Judgement) -> None:
        """Take one judgement; nothing is drawn here, and nobody waited for."""
        try:
            self.pictures.offer(self.history.add(judgement), judgement)
        except Exception as error:  # a defect of the page must not end an inspection
            self.troubles.add("judgement", error)

    write = offer  # as a sink behind a queue; it needs none

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        except Exception as error:
            self.troubles.add("server", error)
        finally:
            self._started.set()
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
            self._loop.close()
            self._socket.close()

    async def _serve(self) -> None:
        self._loop.set_exception_handler(self._on_loop_error)
        app = web.Application(middlewares=self._guard.middlewares, client_max_size=BODY_BYTES)
        app.add_routes(self._handlers.routes())
        runner = web.AppRunner(
            app,
            access_log=None,
            logger=_silent_logger(),
            keepalive_timeout=KEEP_ALIVE_S,
            shutdown_timeout=GOODBYE_S,
            handler_cancellation=True,
        )
        await runner.setup()
        assert runner.server is not None
        self._connections = Connections(runner.server)
        self._guard.served = self._connections.served
        listener = await self._loop.create_server(self._connections, sock=self._socket)
        sweeping = self._loop.create_task(self._connections.keep_sweeping())
        self._started.set()
        await self._stop.wait()
        sweeping.cancel()
        listener.close()
        self._handlers.close()
        await runner.cleanup()

    def _on_loop_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.troubles.add("connection", context.get("exception") or str(context.get("message")))

    def close(self) -> None:
        """Say goodbye to the browsers and stop both threads; a second call does nothing."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(RuntimeError):  # the loop has ended by itself
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(JOIN_S)
        self.pictures.close()


def _listen(address: Address) -> socket.socket:
    try:
        family, _, _, _, where = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        both = family == socket.AF_INET6 and socket.has_dualstack_ipv6()  # [::] means IPv4 too
        return socket.create_server(where[:2], family=family, backlog=64, dualstack_ipv6=both)
    except OSError as error:
        found = error.strerror or str(error)
        raise UserError(f"the page must be able to listen on {address.url()}", found, "choose another port") from None


def _silent_logger() -> logging.Logger:
    """Return a logger for aiohttp that keeps what strangers send out of the console."""
    logger = logging.getLogger("runtime.serve.aiohttp")
    logger.propagate = False
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    return logger
