"""The live picture of one source for everybody who looks at it: asked for once, however many wait."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from runtime.serve.link import Message

INTERVAL_S = 0.1  # between two questions to the inspection, while somebody waits
AT_ONCE = 20  # who get a picture in one interval; the others wait for their turn, and see fewer pictures
FRESH_S = 1.0  # a picture older than this is not shown to somebody who comes new


def now_s() -> float:
    """Return a monotonic time."""
    return time.monotonic()


@dataclass(frozen=True)
class Picture:
    """A JPEG, what the judgement in it was, and when it came (monotonic)."""

    number: int
    shown: Message
    jpeg: bytes
    came_s: float


class Live:
    """`ask(after)` gives a picture with a number above `after`, or None."""

    def __init__(self, ask: Callable[[int], Awaitable[Picture | None]]) -> None:
        self._ask = ask
        self._newest: Picture | None = None
        self._waiting: dict[asyncio.Future[Picture | None], int] = {}  # in the order in which they came
        self._work: asyncio.Task[None] | None = None

    async def newer(self, after: int, within_s: float) -> Picture | None:
        """Return a picture newer than `after`, or None if none comes in `within_s` seconds."""
        waiter: asyncio.Future[Picture | None] = asyncio.get_running_loop().create_future()
        self._waiting[waiter] = after
        if self._work is None or self._work.done():
            self._work = asyncio.create_task(self._hand_out())
        try:
            return await asyncio.wait_for(waiter, within_s)
        except asyncio.TimeoutError:
            return None
        finally:
            self._waiting.pop(waiter, None)

    def close(self) -> None:
        """Send those away who wait."""
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)

    async def _hand_out(self) -> None:
        while self._waiting:
            try:
                await self._renew()
            except Exception as error:
                for waiter in self._waiting:
                    if not waiter.done():
                        waiter.set_exception(error)
                return
            self._give()
            await asyncio.sleep(INTERVAL_S)

    async def _renew(self) -> None:
        newest = self._newest
        after = min(self._waiting.values())
        if newest is not None and newest.number > after and now_s() - newest.came_s < FRESH_S:
            after = newest.number  # fresh enough for those who come new, so only a newer one is wanted
        self._newest = await self._ask(after) or newest

    def _give(self) -> None:
        picture = self._newest
        if picture is None or now_s() - picture.came_s > FRESH_S:
            return
        ready = [waiter for waiter, after in self._waiting.items() if after < picture.number and not waiter.done()]
        for waiter in ready[:AT_ONCE]:
            waiter.set_result(picture)
