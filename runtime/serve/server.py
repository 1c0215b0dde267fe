"""The page beside an inspection: a receiver of judgements that never slows what gives them.

    inspection ─ offer ▶ history, pictures ◀ questions ─ link ─ the page's own process ◀ visitors

The page's process holds nothing that is not asked for here, and may die: it is started again.
"""

import contextlib
import errno
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from runtime.common.closing import Closing
from runtime.common.errors import UserError
from runtime.common.interrupts import signals_blocked
from runtime.drift.watch import DriftWatch
from runtime.recipes.book import Recipes
from runtime.records.log import Log
from runtime.serve.address import Address, require_token
from runtime.serve.answers import Answers
from runtime.serve.changes import Changes
from runtime.serve.history import RECENT, History
from runtime.serve.http_triggers import HttpTriggers
from runtime.serve.limits import GOODBYE_S, Limits
from runtime.serve.link import Message, pack, receive
from runtime.serve.marking import Marking
from runtime.serve.metrics import Metrics
from runtime.serve.observed import Observed
from runtime.serve.page_state import PageState
from runtime.serve.pictures import Pictures
from runtime.serve.status import SinkStatus, SourceStatus, with_own_names
from runtime.serve.threshold_control import ThresholdControl
from runtime.serve.troubles import Troubles
from runtime.shadow.promotion import Promotion
from runtime.sinks.judgement import Judgement
from runtime.triggers.orders import Orders
from runtime.triggers.trigger import TriggerInput

SLOW = frozenset({"threshold", "recipe", "mark", "promotion", "drift"})
JOIN_S = 10.0
LET_GO_S = 5.0  # that the page's process of a killed run may take to end, where the machine is busy
AGAIN_S = 1.0  # before the page's process is started again


@dataclass(frozen=True)
class ServeOptions:
    """`token` None: no sign-in, possible on this machine's own addresses only.

    `health_after_s`: `/health` fails once the last judgement is older.
    """

    address: Address
    token: str | None = None
    health_after_s: float = 10.0
    limits: Limits = field(default_factory=Limits)


class Server(Closing):
    """Serves the page of what `recipes` judge from a process of its own; listens once it is made.

    With `orders` it is an input for triggers too, once it is started as one (`triggers`).
    `sources` gives the sources to show (see `SourceStatus.of`) and `deliveries` what the other sinks have counted
    (`SinkStatus.of`); both are called from the server's thread, about once a second. What the page changes goes into
    the audit of `log`, where there is one. `shadow` is the candidate beside the line, with what promotes it.
    Raises `UserError` for an address that cannot be listened on, and for one that others can reach where there is no
    token.

    `offer` takes microseconds and raises nothing: the inspection's thread may call it itself, without a queue between.
    """

    name = "web page"

    def __init__(
        self,
        options: ServeOptions,
        recipes: Recipes,
        sources: Callable[[], Iterable[Any]] = tuple,
        deliveries: Callable[[], Iterable[Any]] = tuple,
        log: Log | None = None,
        orders: Orders | None = None,
        *,
        shadow: Promotion | None = None,
        drift: DriftWatch | None = None,
    ) -> None:
        require_token(options.address, options.token)
        self._socket = _listen(options.address)
        self.address = Address(options.address.host, self._socket.getsockname()[1])
        self._options = options
        self._sources = sources
        self._deliveries = deliveries
        self._orders = orders
        self._drift = drift
        self._http = None if orders is None else HttpTriggers(orders, lambda: len(self._source_statuses()))
        self.triggers: dict[str, TriggerInput] = {} if self._http is None else {"http": self._http}
        self._live: dict[str, bool] = {}
        self.troubles = Troubles()
        self.history = History()
        self.marking = Marking(log)
        failed = partial(self.troubles.add, "picture")
        kept = (self.marking.keep, self.marking.pack_one)
        self.pictures = Pictures(recipes.in_force.maximum, self._is_live, failed, *kept)
        if shadow is not None:
            shadow.shadow.shown = partial(self.marking.keep, "shadow")
        self._answers = self._assemble(recipes, Changes(log, partial(self.troubles.add, "audit")), shadow)
        self._sending = threading.Lock()
        self._closing = threading.Event()
        try:
            self._link, self.process = self._start()
        except OSError as error:
            raise UserError("the page needs a process of its own", error.strerror or str(error)) from None
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self._thread.start()

    def _assemble(self, recipes: Recipes, changes: Changes, shadow: Promotion | None) -> Answers:
        control = ThresholdControl(recipes, changes)
        observed = Observed(
            self.history,
            self.pictures,
            control,
            self._source_statuses,
            self._sink_statuses,
            self._options.health_after_s,
            None if self._orders is None else self._orders.counts,
            lambda: recipes.checks(),
            None if shadow is None else shadow.report,
            self._drift,
        )
        page_state = PageState(observed, recipes, sign_in=self._options.token is not None)
        metrics = Metrics(observed, self.troubles.counts)
        known = (self._http, self.marking, shadow)
        return Answers(observed, page_state, metrics, self.troubles, changes, recipes, *known)

    def _source_statuses(self) -> list[SourceStatus]:
        return with_own_names(SourceStatus.of(source) for source in self._sources())

    def _sink_statuses(self) -> list[SinkStatus]:
        return with_own_names(SinkStatus.of(counts) for counts in self._deliveries())

    def _is_live(self, name: str) -> bool:
        if name not in self._live:
            self._live[name] = any(status.live for status in self._source_statuses() if status.name == name)
        return self._live[name]

    def offer(self, judgement: Judgement) -> None:
        """Take one judgement; nothing is drawn here, and nobody waited for."""
        try:
            if self._http is not None:
                self._http.offer(judgement)
            number = self.history.add(judgement)
            if judgement.trigger is not None and judgement.answers:
                self.marking.keep("part", number, judgement)
            self.pictures.offer(number, judgement)
        except Exception as error:  # a defect of the page must not end an inspection
            self.troubles.add("judgement", error)

    write = offer  # as a sink behind a queue; it needs none

    def _start(self) -> "tuple[socket.socket, subprocess.Popen[bytes]]":
        """Start the page's process; return our end of the link to it."""
        ours, theirs = socket.socketpair()
        with theirs, signals_blocked():
            inherited = (theirs.fileno(), self._socket.fileno())
            process = subprocess.Popen(
                [sys.executable, "-m", "runtime.serve.page_process", *map(str, inherited)],
                cwd=Path(__file__).resolve().parents[2],  # where Python finds this very package
                stdin=subprocess.DEVNULL,
                pass_fds=inherited,  # and our session: the kernel weighs sessions equally, whatever their niceness
            )
        settings = {
            "address": [self.address.host, self.address.port],
            "token": self._options.token,
            "recent": RECENT,
            "limits": asdict(self._options.limits),
        }
        with contextlib.suppress(OSError):  # it has ended already, which the first wait for a question tells
            ours.sendall(pack(settings))
        return ours, process

    def _run(self) -> None:
        while True:
            self._answer_until_gone()
            status = self.process.wait()
            self._link.close()
            if self._closing.is_set():
                return
            self.troubles.add("process", f"the page's process ended with status {status}, and is started again")
            if self._closing.wait(AGAIN_S):
                return
            try:
                self._link, self.process = self._start()
            except OSError as error:
                self.troubles.add("process", error)
            if self._closing.is_set():
                with contextlib.suppress(OSError):
                    self._link.shutdown(socket.SHUT_WR)

    def _answer_until_gone(self) -> None:
        while message := receive(self._link):
            question, _ = message
            if question["ask"] in SLOW or question.get("wait"):  # takes long, and others want to be answered
                threading.Thread(target=self._answer, args=(question,), name="page answer", daemon=True).start()
            else:
                self._answer(question)

    def _answer(self, question: Message) -> None:
        answer, body = self._answers.to(question)
        try:
            message = pack({**answer, "to": question["number"]}, body)
        except ValueError as error:  # not a number
            self.troubles.add("request", error)
            message = pack({"failed": True, "to": question["number"]})
        with contextlib.suppress(OSError), self._sending:  # it has gone, which the next question tells
            self._link.sendall(message)

    def close(self) -> None:
        """Say goodbye to the browsers, end their process and both threads; a second call does nothing."""
        if self._closing.is_set():
            return
        self._closing.set()
        with contextlib.suppress(OSError):  # it has ended by itself
            self._link.shutdown(socket.SHUT_WR)  # the process ends after that
        try:
            self.process.wait(GOODBYE_S + JOIN_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self._thread.join(JOIN_S)
        self._socket.close()
        self.pictures.close()


def _listen(address: Address) -> socket.socket:
    """Return a socket that listens; the page of a run that was killed a moment ago may still have to let go of it."""
    until = time.monotonic() + LET_GO_S
    opened = _opened(address)
    while isinstance(opened, OSError) and opened.errno == errno.EADDRINUSE and time.monotonic() < until:
        time.sleep(0.1)
        opened = _opened(address)
    if isinstance(opened, OSError):
        found = opened.strerror or str(opened)
        raise UserError(f"the page must be able to listen on {address.url()}", found, "choose another port")
    return opened


def _opened(address: Address) -> socket.socket | OSError:
    try:
        family, _, _, _, where = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        both = family == socket.AF_INET6 and socket.has_dualstack_ipv6()  # [::] means IPv4 too
        return socket.create_server(where[:2], family=family, backlog=64, dualstack_ipv6=both)
    except OSError as error:
        return error
