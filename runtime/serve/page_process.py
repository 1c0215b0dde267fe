"""The process that serves the page: `python -m runtime.serve.page_process LINK LISTEN`, started by `Server` alone.

A process of its own, so that readers wait for no lock of the inspection's Python and the inspection for none of
theirs, at a low priority. LINK and LISTEN are the numbers of inherited sockets. It ends when the link does;
Ctrl-C and SIGTERM are blocked.
"""

import asyncio
import contextlib
import logging
import os
import resource
import socket
import sys
from typing import Any

from aiohttp import web

from runtime.serve.access import Access
from runtime.serve.address import Address
from runtime.serve.connections import Connections
from runtime.serve.guard import Guard
from runtime.serve.handlers import Handlers
from runtime.serve.inspected import Inspected
from runtime.serve.limits import BODY_BYTES, GOODBYE_S, KEEP_ALIVE_S, LINGER_S, Limits
from runtime.serve.link import receive_async
from runtime.serve.outbox import Outbox

GIVE_WAY = 10  # of niceness: a tenth of a core that the inspection wants too, enough to answer a watchdog
OTHER_FILES = 64  # file descriptors besides those of visitors
BACKLOG = 1024
BUFFER = 1 << 22  # bytes of the link's reader, above a picture's


def _become_small(connections: int) -> None:
    """Give way to the inspection, and be allowed the file descriptors that `connections` need."""
    with contextlib.suppress(OSError):
        os.nice(GIVE_WAY)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + OTHER_FILES
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))


async def _serve(link: socket.socket, listening: socket.socket) -> None:
    reader, writer = await asyncio.open_connection(sock=link, limit=BUFFER)
    first = await receive_async(reader)
    if first is None:
        return
    settings, _ = first
    limits = Limits(**settings["limits"])
    _become_small(limits.connections)
    inspected = Inspected(reader, writer, settings["recent"], limits.fresh_s)
    outbox = Outbox(inspected)
    access = Access(settings["token"])
    guard = Guard(Address(*settings["address"]), access, lambda error: outbox.add("request", error))
    handlers = Handlers(access, guard, inspected, outbox, limits)
    asyncio.get_running_loop().set_exception_handler(
        lambda loop, context: outbox.add("connection", context.get("exception") or str(context.get("message")))
    )
    app = web.Application(middlewares=guard.middlewares, client_max_size=BODY_BYTES)
    app.add_routes(handlers.routes())
    runner = web.AppRunner(app, handle_signals=False, shutdown_timeout=GOODBYE_S, handler_cancellation=True)
    await runner.setup()
    assert runner.server is not None
    guard.connections = Connections(runner.server, limits, **_connection_options())
    listener = await asyncio.get_running_loop().create_server(guard.connections, sock=listening, backlog=BACKLOG)
    besides = [asyncio.create_task(work) for work in (guard.connections.keep_sweeping(), outbox.keep_sending())]
    await inspected.keep_listening()
    for task in besides:
        task.cancel()
    listener.close()
    handlers.close()
    await runner.cleanup()
    writer.close()


def _connection_options() -> dict[str, Any]:
    """Return what aiohttp is to do with a connection: no log of what strangers send, no unpacking of bodies."""
    logger = logging.getLogger("runtime.serve.aiohttp")
    logger.propagate = False
    logger.addHandler(logging.NullHandler())
    return {
        "access_log": None,
        "logger": logger,
        "keepalive_timeout": KEEP_ALIVE_S,
        "lingering_time": LINGER_S,
        "auto_decompress": False,
    }


def main() -> None:
    """Serve until the inspection has gone."""
    link, listening = (socket.socket(fileno=int(number)) for number in sys.argv[1:3])
    asyncio.run(_serve(link, listening))


if __name__ == "__main__":
    main()
