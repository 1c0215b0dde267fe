"""Readers of a page, good and bad ones, in a process of their own: `python -m tests.reliability.page_readers PORT N`.

Of N a half look at the live picture, a tenth at the report; the others ask and never read, begin and never end, or
connect and say nothing. Goes on until it is ended; prints how many answers came, by status, when stdin is closed.
"""

import asyncio
import contextlib
import os
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from itertools import chain, repeat

AGAIN_S = 0.2
HEAD = "HTTP/1.1\r\nHost: localhost\r\n"
Reader = Callable[[int, "Counter[str]"], Awaitable[None]]


async def _ask(port: int, path: Callable[[str], str], pause_s: float, counts: "Counter[str]") -> None:
    """Ask for `path` (of the last picture's number) again and again over one connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    number = "0"
    try:
        while True:
            writer.write(f"GET {path(number)} {HEAD}\r\n".encode())
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            fields = dict(line.split(": ", 1) for line in head.strip().split("\r\n")[1:])
            await reader.readexactly(int(fields.get("content-length", 0)))
            number = fields.get("x-frame-number", number)
            counts[head.split()[1]] += 1
            await asyncio.sleep(pause_s)
    finally:
        writer.close()


async def live(port: int, counts: "Counter[str]") -> None:
    """Look at the live picture, as the page does."""
    await _ask(port, lambda number: f"/live/0.jpg?after={number}", 0.0, counts)


async def report(port: int, counts: "Counter[str]") -> None:
    """Ask for the whole report once a second."""
    await _ask(port, lambda _: "/api/state", 1.0, counts)


async def _stall(port: int, text: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
    writer.write(text.encode())
    try:
        while not writer.transport.is_closing():
            await asyncio.sleep(AGAIN_S)
    finally:
        writer.close()
        del reader


async def greedy(port: int, counts: "Counter[str]") -> None:
    """Ask for much and read nothing."""
    await _stall(port, f"GET /api/state {HEAD}\r\n" * 200)


async def slow(port: int, counts: "Counter[str]") -> None:
    """Begin a request and never end it."""
    await _stall(port, f"POST /api/threshold {HEAD}Content-Length: 100\r\n\r\n{{")


async def silent(port: int, counts: "Counter[str]") -> None:
    """Connect, and say nothing."""
    await _stall(port, "")


async def _again(reader: Reader, port: int, counts: "Counter[str]") -> None:
    while True:
        with contextlib.suppress(OSError, EOFError, asyncio.IncompleteReadError, ValueError):
            await reader(port, counts)
        counts["connected again"] += 1
        await asyncio.sleep(AGAIN_S)


async def _run(port: int, number: int) -> None:
    counts: Counter[str] = Counter()
    kinds: list[Reader] = [live, live, live, live, live, report, greedy, slow, silent, silent]
    readers = [reader for reader, _ in zip(chain.from_iterable(repeat(kinds)), range(number), strict=False)]
    tasks = [asyncio.create_task(_again(reader, port, counts)) for reader in readers]
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    print(dict(sorted(counts.items())))


if __name__ == "__main__":
    os.nice(19)  # who looks on from another machine takes nothing from this one's processors
    asyncio.run(_run(int(sys.argv[1]), int(sys.argv[2])))
