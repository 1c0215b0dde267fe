"""What the page costs the inspection: `python -m runtime.serve.overhead --engine cable.onnx`.

Judges the same frames without the page, with it and nobody looking, with browsers' worth of viewers, and with clients
that ask and never read, in turn and several times over; prints medians over the rounds and the best round, which other
work on the machine disturbed least. The clients run in a process of their own, on the same machine: on few cores they
take a share of it themselves.
"""

import argparse
import http.client
import json
import multiprocessing
import socket
import sys
import threading
import time
from collections.abc import Sequence
from multiprocessing.synchronize import Event
from pathlib import Path

import numpy as np

from runtime.common.errors import run_command
from runtime.detector import Detector, load
from runtime.serve.address import Address
from runtime.serve.server import ServeOptions, Server
from runtime.serve.status import SourceStatus
from runtime.sinks.judgement import Judgement
from runtime.sources.frame import Frame

SOURCE = "camera:0"
FRAME = (480, 640)  # height, width in pixels


def _look(port: int, stop: Event) -> None:
    """Ask for what one open page asks for."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    picture, point, asked_s = 0, 0, 0.0
    while not stop.is_set():
        connection.request("GET", f"/live/0.jpg?after={picture}")
        answer = connection.getresponse()
        if answer.read() and answer.status == 200:
            picture = int(answer.headers["X-Frame-Number"])
        if time.monotonic() - asked_s > 1:
            asked_s = time.monotonic()
            connection.request("GET", f"/api/state?since={point}")
            points = json.loads(connection.getresponse().read())["points"]
            point = points[-1][0] if points else point


def _never_read(port: int, stop: Event) -> None:
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"GET /live/0.jpg HTTP/1.1\r\nHost: localhost\r\n\r\n" * 500)
        stop.wait()


def _clients(port: int, count: int, reading: bool, stop: Event) -> None:
    what = _look if reading else _never_read
    for _ in range(count):
        threading.Thread(target=what, args=(port, stop), daemon=True).start()
    stop.wait()


def _judge(detector: Detector, server: Server | None, seconds: float) -> tuple[list[float], list[float]]:
    """Judge for `seconds`; return milliseconds a frame, and microseconds that offering it to the page took."""
    image = np.random.default_rng(0).integers(0, 256, (*FRAME, 3), dtype=np.uint8)
    frames_ms: list[float] = []
    offers_us: list[float] = []
    end = time.perf_counter() + seconds
    while (started := time.perf_counter()) < end:
        result = detector(image)
        judged = time.perf_counter()
        if server is not None:
            frame = Frame(image, f"frame_{len(frames_ms):06d}", len(frames_ms), time.time())
            server.offer(Judgement(SOURCE, frame, result))
        offers_us.append(1e6 * (time.perf_counter() - judged))
        frames_ms.append(1e3 * (time.perf_counter() - started))
    return frames_ms, offers_us


def measure(engine: Path, rounds: int, seconds: float, viewers: int) -> str:
    """Return the table."""
    cases = {
        "no page": None,
        "nobody looks": (0, True),
        "1 looks": (1, True),
        f"{viewers} look": (viewers, True),
        f"{viewers} do not read": (viewers, False),
    }
    rows: dict[str, list[tuple[float, float]]] = {name: [] for name in cases}
    options = ServeOptions(Address("127.0.0.1", 0))
    with load(engine) as detector, Server(options, detector, engine, lambda: [SourceStatus(SOURCE, True)]) as server:
        _judge(detector, server, seconds)  # warm-up
        for _ in range(rounds):
            for name, case in cases.items():
                rows[name].append(_one(detector, server, case, seconds))
    lines = [f"{'':<18}{'ms a frame':>12}{'best round':>12}{'µs to offer':>14}   (medians of {rounds} rounds in turn)"]
    for name, values in rows.items():
        ms, us = np.median(np.array(values), axis=0).tolist()
        best_ms = min(ms for ms, _ in values)
        lines.append(f"{name:<18}{ms:>12.2f}{best_ms:>12.2f}" + (f"{us:>14.1f}" if cases[name] else ""))
    return "\n".join(lines)


def _one(detector: Detector, server: Server, case: tuple[int, bool] | None, seconds: float) -> tuple[float, float]:
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    clients = context.Process(target=_clients, args=(server.address.port, *(case or (0, True)), stop), daemon=True)
    clients.start()
    time.sleep(1.0)
    frames_ms, offers_us = _judge(detector, None if case is None else server, seconds)
    stop.set()
    clients.join(5)
    clients.kill()
    return float(np.median(frames_ms)), float(np.median(offers_us))


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m runtime.serve.overhead", description=__doc__)
    parser.add_argument("--engine", type=Path, required=True, metavar="FILE", help="a .plan or .onnx")
    parser.add_argument("--rounds", type=int, default=5, help="rounds (5)")
    parser.add_argument("--seconds", type=float, default=3.0, help="seconds of each case in a round (3)")
    parser.add_argument("--viewers", type=int, default=20, help="clients (20)")
    args = parser.parse_args(argv)
    print(measure(args.engine, args.rounds, args.seconds, args.viewers))


if __name__ == "__main__":
    sys.exit(run_command(main))
