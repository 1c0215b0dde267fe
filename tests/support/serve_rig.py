"""A running page over a real engine, fed by hand, and a plain HTTP client for it."""

import http.client
import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import runtime
from runtime.detector import Detector
from runtime.drift.watch import DriftWatch
from runtime.recipes.book import Recipes
from runtime.recipes.recipe import Recipe
from runtime.records.log import Log
from runtime.serve.address import Address
from runtime.serve.limits import Limits
from runtime.serve.server import ServeOptions, Server
from runtime.sinks.judgement import Judgement
from runtime.sources.frame import Frame
from runtime.triggers.orders import Orders
from tests.support.tiny_engine import write_tiny_engine

TOKEN = "correct-horse-battery-staple"
AT_ONCE = Limits(fresh_s=0.0)  # every report is made for who asks
TAPS = 3  # a frame of grey level v scores 3·v/255; the threshold is 1, grey level 85


@dataclass
class ASource:
    """What the page reads of a source."""

    name: str = "camera:0"
    live: bool = True
    dropped: int = 0
    state: str = "live"
    reconnects: int = 0
    incomplete: int = 0
    missing: int = 0


@dataclass
class ADelivery:
    """What the page reads of a delivery."""

    name: str = "mqtt"
    delivered: int = 0
    lost: int = 0
    failed: int = 0
    last_error: str | None = None


@dataclass
class Rig:
    """The page, the detector behind it and what it shows."""

    server: Server
    detector: Detector
    engine: Path
    sources: list[ASource] = field(default_factory=lambda: [ASource()])
    deliveries: list[ADelivery] = field(default_factory=list)
    judged: int = 0

    def judge(self, level: int, source: str = "camera:0", at_s: float | None = None) -> Judgement:
        """Judge a frame of this grey level with a stripe that moves, and give it to the page."""
        image = np.full((32, 48, 3), level, np.uint8)
        image[:, self.judged % 48] = level // 2  # darker, so that the score stays
        frame = Frame(image, f"frame_{self.judged:06d}", self.judged, time.time() if at_s is None else at_s)
        self.judged += 1
        judgement = Judgement(source, frame, self.detector(image))
        self.server.write(judgement)
        return judgement

    def ask(self, path: str, method: str = "GET", body: Any = None, **headers: str) -> "Answer":
        """Send one request; `headers` with _ for -. A dict as body is sent as JSON, a str as a form."""
        connection = http.client.HTTPConnection("127.0.0.1", self.server.address.port, timeout=60)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if isinstance(body, str):
            sent.setdefault("Content-Type", "application/x-www-form-urlencoded")
        data = json.dumps(body) if isinstance(body, dict) else body
        try:
            connection.request(method, path, data, sent)
            response = connection.getresponse()
            return Answer(response.status, dict(response.getheaders()), response.read())
        finally:
            connection.close()

    def state(self, **headers: str) -> dict[str, Any]:
        """Return the report as it is now."""
        return self.ask("/api/state", **headers).json()

    def connect(self) -> socket.socket:
        """Return a bare connection."""
        return socket.create_connection(("127.0.0.1", self.server.address.port), timeout=60)


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the body as JSON."""
        return json.loads(self.body)


def plain(detector: Detector, engine: Path) -> Recipes:
    """Return what judges in a run without recipes."""
    return Recipes([Recipe.plain(detector, engine)])


@contextmanager
def serving(
    folder: Path,
    token: str | None = None,
    health_after_s: float = 10.0,
    limits: Limits = AT_ONCE,
    log: Log | None = None,
    orders: Orders | None = None,
    recipes: Recipes | None = None,
    drift: Callable[[Recipes], DriftWatch] | None = None,
    engine: Path | None = None,
    **load: Any,
) -> Iterator[Rig]:
    """Serve the page of an engine, a tiny one where none is named, on a free port of this machine."""
    engine = engine or write_tiny_engine(folder)
    with runtime.load(engine, backend="onnxruntime", threads=1, **load) as detector:
        shown: list[Rig] = []
        options = ServeOptions(Address("127.0.0.1", 0), token, health_after_s, limits)
        sources = lambda: shown[0].sources if shown else ()  # noqa: E731
        deliveries = lambda: shown[0].deliveries if shown else ()  # noqa: E731
        recipes = recipes or plain(detector, engine)
        watch = None if drift is None else drift(recipes)
        with Server(options, recipes, sources, deliveries, log, orders, drift=watch) as server:
            shown.append(Rig(server, detector, engine))
            shown[0].ask("/health")  # the page's process has begun
            yield shown[0]


def until(true: Callable[[], Any], within_s: float = 120.0) -> Any:
    """Wait for `true()` and return what it gave; fail loudly if it never comes."""
    end = time.monotonic() + within_s
    while not (value := true()):
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)
    return value
