"""What the page costs the inspection: `python -m runtime.overhead --engine cable.onnx --serve`.

The same frames are judged without the page, with it and nobody looking, with browsers' worth of viewers, and with
clients that ask and never read, in turn and several times over. The clients run in a process of their own, on the same
machine: on few cores they take a share of it themselves.
"""

import contextlib
import http.client
import json
import multiprocessing
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from runtime.detector import Detector
from runtime.serve.address import Address
from runtime.serve.server import ServeOptions, Server
from runtime.serve.status import SourceStatus
from runtime.sinks.judgement import Judgement
from runtime.sources.frame import Frame

SOURCE = "camera:0"


def page_overhead(detector: Detector, engine: Path, frames: Iterable[Frame], rounds: int, viewers: int) -> str:
    """Return the table: medians over the rounds, and the best round, which other work disturbed least."""
    cases: dict[str, tuple[int, Callable[[int], None]]] = {
        "no page": (0, _look),
        "nobody looks": (0, _look),
        "1 looks": (1, _look),
        f"{viewers} look": (viewers, _look),
        f"{viewers} do not read": (viewers, _never_read),
    }
    rows: dict[str, list[tuple[float, float]]] = {name: [] for name in cases}
    with Server(
        ServeOptions(Address("127.0.0.1", 0)), detector, engine, lambda: [SourceStatus(SOURCE, True)]
    ) as server:
        _judge(detector, frames, server.offer)  # warm-up
        for _ in range(rounds):
            for name, (count, client) in cases.items():
                with _clients(server.address.port, count, client):
                    offer = (lambda _: None) if name == "no page" else server.offer
                    rows[name].append(_judge(detector, frames, offer))
    lines = [f"{'':<18}{'ms a frame':>12}{'best round':>12}{'µs to offer':>14}   (medians of {rounds} rounds in turn)"]
    for name, values in rows.items():
        ms, us = np.median(values, axis=0).tolist()
        lines.append(f"{name:<18}{ms:>12.2f}{min(values)[0]:>12.2f}" + (f"{us:>14.1f}" if name != "no page" else ""))
    return "\n".join(lines)


def _judge(detector: Detector, frames: Iterable[Frame], offer: Callable[[Judgement], None]) -> tuple[float, float]:
    """Return the median milliseconds a frame, and the median microseconds of offering it to the page."""
    times: list[tuple[float, float]] = []
    for frame in frames:
        started = time.perf_counter()
        result = detector(frame.image)
        judged = time.perf_counter()
        offer(Judgement(SOURCE, frame, result))
        offered = time.perf_counter()
        times.append((1e3 * (offered - started), 1e6 * (offered - judged)))
    frame_ms, offer_us = np.median(times, axis=0).tolist()
    return frame_ms, offer_us


@contextlib.contextmanager
def _clients(port: int, count: int, client: Callable[[int], None]) -> Iterator[None]:
    """Let `count` clients ask within the context."""
    process = multiprocessing.get_context("spawn").Process(target=_run, args=(port, count, client), daemon=True)
    process.start()
    time.sleep(1.0)
    try:
        yield
    finally:
        process.kill()
        process.join()


def _run(port: int, count: int, client: Callable[[int], None]) -> None:
    for _ in range(count):
        threading.Thread(target=client, args=(port,)).start()


def _look(port: int) -> None:
    """Ask for what one open page asks for."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    picture, point, asked_s = 0, 0, 0.0
    while True:
        connection.request("GET", f"/live/0.jpg?after={picture}")
        answer = connection.getresponse()
        if answer.read() and answer.status == 200:
            picture = int(answer.headers["X-Frame-Number"])
        if time.monotonic() - asked_s > 1:
            asked_s = time.monotonic()
            connection.request("GET", f"/api/state?since={point}")
            points = json.loads(connection.getresponse().read())["points"]
            point = points[-1][0] if points else point


def _never_read(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"GET /live/0.jpg HTTP/1.1\r\nHost: localhost\r\n\r\n" * 500)
        threading.Event().wait()
