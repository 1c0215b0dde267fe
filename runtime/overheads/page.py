"""What the page costs: with nobody looking, with viewers, and with clients that ask and never read."""

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable
from multiprocessing import get_context

import numpy as np

from runtime.detector import Detector
from runtime.engines.remote.address import EngineAt
from runtime.overheads.timing import time_frames


def page_overhead(detector: Detector, engine: EngineAt, frames: int, rounds: int, viewers: int) -> str:
    """Return the table: medians over the rounds, and the best round, which other work disturbed least."""
    from runtime.recipes.book import Recipes
    from runtime.recipes.recipe import Recipe
    from runtime.serve.address import Address
    from runtime.serve.server import ServeOptions, Server
    from runtime.serve.status import SourceStatus

    cases = {"no page": 0, "nobody looks": 0, "1 looks": 1, f"{viewers} look": viewers}
    cases[f"{viewers} do not read"] = viewers
    rows: dict[str, list[tuple[float, float]]] = {name: [] for name in cases}
    sources = [SourceStatus("memory", True)]
    recipes = Recipes([Recipe.plain(detector, engine)])
    with Server(ServeOptions(Address("127.0.0.1", 0)), recipes, lambda: sources) as server:
        time_frames(detector, frames, server.offer)  # warm-up
        for _ in range(rounds):
            for name, clients in cases.items():
                work = (clients, _never_read if name.endswith("do not read") else _look, server.address.port)
                process = get_context("spawn").Process(target=_run, args=work, daemon=True)
                process.start()
                time.sleep(1.0)
                rows[name].append(time_frames(detector, frames, server.offer if name != "no page" else lambda _: None))
                process.kill()
                process.join()
    lines = [f"{'':<18}{'ms a frame':>12}{'best round':>12}{'µs to offer':>14}   (medians of {rounds} rounds in turn)"]
    for name, values in rows.items():
        ms, us = np.median(values, axis=0).tolist()
        lines.append(f"{name:<18}{ms:>12.2f}{min(values)[0]:>12.2f}" + (f"{us:>14.1f}" if name != "no page" else ""))
    return "\n".join(lines)


def _run(count: int, client: Callable[[int], None], port: int) -> None:
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
