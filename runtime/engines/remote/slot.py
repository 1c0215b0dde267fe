"""One request at a time: its thread, its connection, and the memory that its frames lie in."""

import queue
from collections.abc import Callable
from contextlib import suppress
from threading import Thread

from runtime.engines.remote import memory
from runtime.engines.remote.address import RemoteEngine
from runtime.engines.remote.client import Answer, Client, Fault, NotOffered, Request
from runtime.engines.remote.contract import Served
from runtime.engines.remote.memory import Region
from runtime.engines.remote.options import ServerOptions
from runtime.engines.remote.parameters import ENGINE
from runtime.engines.session import Frames

GOODBYE_S = 5.0


class Slot:
    """Takes frames (`put`, in the session's thread), then asks for them (`ask`, in its own), and begins again.

    Frames lie in memory that the server opens, where it can; where not, they are sent.
    """

    def __init__(self, engine: RemoteEngine, options: ServerOptions) -> None:
        self._engine, self._options = engine, options
        self._client: Client | None = None
        self._region: Region | None = None
        self._shares = options.shared_memory
        self._turn = 0  # when the server was told of the region
        self._sent: Frames | None = None
        self._shape: tuple[int, ...] = (0,)
        self.number = ""
        self._tasks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = Thread(target=self._work, name="request", daemon=True)
        self._thread.start()

    @property
    def batch(self) -> int:
        """How many frames it was given."""
        return self._shape[0]

    def put(self, frames: Frames) -> None:
        """Take a copy of `frames`, into shared memory where there is room."""
        self._shape = frames.shape
        if self._shares and (self._region is None or self._region.size < frames.size):
            self._grow(frames.size)
        if self._region is None:
            self._sent = frames.copy()
        else:
            self._region.put(frames)

    def _grow(self, size: int) -> None:
        """Take a larger region; the server forgets the old one with its next look at those that are left behind."""
        old, self._region, self._turn = self._region, None, 0
        if old is not None:
            old.close()
        try:
            self._region = Region(size)
        except OSError:  # no place for it, or none left there
            self._shares = False

    def ask(self, turn: int, served: Served, number: str, timeout_s: float) -> Answer:
        """Send the request and wait for its answer; `turn` tells whether the server is still the one of before.

        Raises `Fault`; the connection is a new one after that.
        """
        self.number = number
        try:
            if self._client is None:
                self._client = Client(self._engine, self._options, self._options.deadline_ms / 1e3)
            if self._region is not None and self._turn != turn:
                self._share(self._client, self._region, turn)
            frames = self._sent if self._region is None else self._region.name
            assert frames is not None
            parameters = {ENGINE: served.engine} if served.checks else {}
            request = Request(frames, self._shape, served.version, number, parameters)
            return self._client.infer(request, timeout_s)
        except BaseException:
            self._disconnect()
            raise

    def _share(self, client: Client, region: Region, turn: int) -> None:
        """Let the server open the region. One that cannot (on another machine, of another user) is sent the frames."""
        try:
            client.register(region.name, region.key, region.size)
        except NotOffered:
            self._send_instead(region)
            return
        except Fault:
            if region.name not in client.regions():  # and not: the server has gone
                self._send_instead(region)
                return
        self._turn = turn
        for name in memory.left_behind(client.regions()):
            with suppress(Fault):
                client.unregister(name)

    def _send_instead(self, region: Region) -> None:
        self._sent, self._region, self._shares = region.content(self._shape), None, False
        region.close()

    def _disconnect(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            with suppress(Fault):
                client.close()

    def work(self, task: Callable[[], None]) -> None:
        """Do `task` in this slot's thread."""
        self._tasks.put(task)

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            task()
        if self._region is not None and self._client is not None and self._turn:
            with suppress(Fault):
                self._client.unregister(self._region.name)
        self._disconnect()
        if self._region is not None:
            self._region.close()

    def close(self) -> None:
        """End its thread, and give connection and memory back."""
        self._tasks.put(None)
        self._thread.join(GOODBYE_S)
