"""The way to a server: whether it is open, and if not, why; a thread of its own looks after it.

up ── a request fails, or a look finds another model ──▶ down ── looks, ever more seldom, until all is as before ──▶ up
"""

import threading
import time
from pathlib import Path

from runtime.common.closing import Closing
from runtime.common.errors import UserError
from runtime.common.notices import say
from runtime.engines.remote.address import RemoteEngine
from runtime.engines.remote.client import CONNECT_S, Client, Fault
from runtime.engines.remote.contract import Served, served
from runtime.engines.remote.options import ServerOptions
from runtime.engines.session import Unanswered

LOOK_S = 2.0  # between two looks at a server that answers
SOONEST_S, LATEST_S = 0.1, 3.0  # between two looks at one that does not


class Link(Closing):
    """Watches the server of `engine`, which must go on serving what `expected` says. Any thread may call anything."""

    def __init__(self, engine: RemoteEngine, options: ServerOptions, expected: Served) -> None:
        self._engine, self._options, self._expected = engine, options, expected
        self._changed = threading.Condition()
        self._why, self._turn, self._closed = "", 1, False
        self._thread = threading.Thread(target=self._watch, name="server", daemon=True)
        self._thread.start()

    def wait(self, until: float) -> int:
        """Return a number for the server as it is now, once it is there; another after it was away.

        Raises `Unanswered`, with the reason, where it is not there by `until` (of `time.monotonic`).
        """
        with self._changed:
            while self._why:
                left = until - time.monotonic()
                if left <= 0 or self._closed:
                    raise Unanswered(self._why)
                self._changed.wait(left)
            return self._turn

    def doubt(self, turn: int, reason: str) -> None:
        """Let the server be looked at before it is asked again; `turn` is when it failed, from `wait`."""
        with self._changed:
            if turn == self._turn and not self._why:
                self._why = reason
                self._changed.notify_all()

    def _watch(self) -> None:
        pause_s, told = SOONEST_S, ""
        self._sleep(LOOK_S, True)
        while not self._closed:
            reason = self._look()
            with self._changed:
                if self._why and not reason:
                    self._turn += 1
                self._why = reason
                self._changed.notify_all()
            if reason != told and (reason or told):
                told = reason
                say(f"{self._engine}: {f'no verdicts: {reason}' if reason else 'judges again'}")
            pause_s = min(2 * pause_s, LATEST_S) if reason else SOONEST_S
            self._sleep(pause_s if reason else LOOK_S, not reason)

    def _look(self) -> str:
        """Return why frames cannot be given to the server; empty where they can."""
        try:
            local = self._expected if self._options.sidecar else None  # whoever edits the file edits it for later
            now = _asked(self._engine, self._options, self._expected.version, local)
        except (Fault, UserError, OSError) as error:
            return str(error)
        if now.identity != self._expected.identity:
            return "the server has another engine or sidecar than at the start; start again to judge with it"
        return ""

    def _sleep(self, seconds: float, was_up: bool) -> None:
        """Wait for `seconds`, or until a request fails where the server seemed to be there."""
        until = time.monotonic() + seconds
        with self._changed:
            while not self._closed and (left := until - time.monotonic()) > 0 and not (was_up and self._why):
                self._changed.wait(left)

    def close(self) -> None:
        """Look no more; a second call does nothing."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(3 * CONNECT_S)


def first_look(engine: RemoteEngine, options: ServerOptions) -> Served:
    """Return what the server serves, and wait for it as `options` say. Raises `UserError` where it is not there."""
    until, pause_s = time.monotonic() + options.wait_s, SOONEST_S
    while True:
        try:
            return _asked(engine, options, engine.version, options.sidecar)
        except Fault as fault:
            if time.monotonic() >= until:
                cure = "start the server, or wait for it with --server-wait S"
                raise UserError(f"{engine} must answer", str(fault), cure) from None
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, LATEST_S)


def _asked(engine: RemoteEngine, options: ServerOptions, version: str, local: Path | Served | None) -> Served:
    client = Client(engine, options, CONNECT_S)
    try:
        return served(client, engine, version, local)
    finally:
        client.close()
