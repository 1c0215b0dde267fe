"""What stands around an inspection: a broker, a webhook's server, viewers of the page. All real, all on loopback."""

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from runtime.common.files import write_text
from tests.reliability.forks import start
from tests.support.waiting import wait_until

MOSQUITTO = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def answers(port: int) -> bool:
    """Return whether somebody listens on `port`."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Webhook:
    """A server that takes JSON, `after_s` seconds after it was sent (None: never); `got` holds the bodies."""

    def __init__(self, after_s: float | None = 0.0) -> None:
        self.got: list[dict[str, Any]] = []
        outer, held = self, threading.Event()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                held.wait(after_s)
                outer.got.append(json.loads(body))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/verdicts"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def __enter__(self) -> "Webhook":
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextlib.contextmanager
def forked_webhook(folder: Path, after_s: float | None = 0.0) -> Iterator[str]:
    """Yield the address of a webhook's server in a process of its own, so that this one stays without threads."""
    ready = folder / f"webhook-{after_s}"

    def serve() -> int:
        with Webhook(after_s) as webhook:
            write_text(ready, webhook.url)
            signal.pause()
        return 0

    pid = start(serve, folder / "webhook.log")
    try:
        wait_until(ready.exists, "the webhook's server did not start")
        yield ready.read_text(encoding="utf-8")
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@contextlib.contextmanager
def broker(folder: Path) -> Iterator[tuple[str, "subprocess.Popen[bytes]"] | None]:
    """Yield the address of a mosquitto and its process, or None where the program is missing."""
    if MOSQUITTO is None:
        yield None
        return
    port, configuration = free_port(), folder / "mosquitto.conf"
    user = "user root\n" if os.geteuid() == 0 else ""
    configuration.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\n{user}")
    command = [MOSQUITTO, "-c", str(configuration)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: answers(port), "the broker did not start")
        yield f"mqtt://127.0.0.1:{port}/line1/verdicts", process
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def viewer(port: int, every_s: float = 1.0) -> Iterator[list[int]]:
    """Ask the page for what a browser asks, over and over; yield the statuses of the answers so far."""
    statuses: list[int] = []
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(every_s):
            with contextlib.suppress(OSError, http.client.HTTPException):
                for path in ("/", "/api/state", "/live/0.jpg", "/metrics", "/health"):
                    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
                    try:
                        connection.request("GET", path)
                        answer = connection.getresponse()
                        answer.read()
                        statuses.append(answer.status)
                    finally:
                        connection.close()

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield statuses
    finally:
        ended.set()
        thread.join(15)
