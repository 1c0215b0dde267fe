"""A network camera that goes away and comes back: every picture sent is judged or counted, and the run goes on."""

import contextlib
import http.server
import io
import json
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from PIL import Image

import runtime
from runtime.inspection import Inspection, InspectionOptions
from runtime.sinks.delivery import Deliveries
from runtime.sinks.json_lines import LinesSink
from runtime.sources.backoff import Backoff
from runtime.sources.live import Live, LiveOptions
from runtime.sources.streams import url_origin
from tests.reliability.result import Result, Scale
from tests.support.tiny_engine import write_tiny_engine

PICTURES = 8  # of a connection
EVERY_S = 0.02
FAST = Backoff(first_s=0.01, cap_s=0.02)  # not the command's 30 s, or a hundred losses would take an hour
PATIENCE_S = 60.0


class Camera:
    """Serves MJPEG over HTTP as cameras do, and ends each connection after some pictures; `sent` counts those.

    After `losses` of them the next one stays, and falls silent.
    """

    def __init__(self, losses: int) -> None:
        self.sent = self.connections = 0
        self._losses = losses
        self._closed = threading.Event()
        camera = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                if not self.headers.get("User-Agent", "").startswith("Lavf"):
                    return  # asked what kind of address this is, before FFmpeg opens it
                with contextlib.suppress(OSError):
                    camera._send(self.wfile)

            def log_message(self, *_: object) -> None:
                pass

        self._http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}/line"
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def _send(self, out: io.BufferedIOBase) -> None:
        self.connections += 1
        for _ in range(PICTURES):
            data = io.BytesIO()
            Image.fromarray(np.full((48, 64, 3), 20 + self.sent % 200, np.uint8)).save(data, "JPEG")
            size = len(data.getvalue())
            out.write(f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {size}\r\n\r\n".encode())
            out.write(data.getvalue() + b"\r\n")
            out.flush()
            self.sent += 1
            time.sleep(EVERY_S)
        if self.connections > self._losses:
            self._closed.wait()

    @property
    def silent(self) -> bool:
        """Whether everything has been sent."""
        return self.sent == PICTURES * (self._losses + 1)

    def close(self) -> None:
        self._closed.set()
        self._http.shutdown()
        self._http.server_close()


def losses(count: int) -> dict[str, int]:
    """Judge a camera that is lost `count` times; return what was sent, judged, dropped and written."""
    camera, said = Camera(count), list[str]()
    with tempfile.TemporaryDirectory() as folder:
        lines = Path(folder, "frames.jsonl")
        source = Live(url_origin(camera.url), LiveOptions(FAST, wait=True, say=said.append))
        detector = runtime.load(write_tiny_engine(Path(folder)), backend="onnxruntime", threads=1)
        with detector, Deliveries([LinesSink(lines)]) as deliveries:
            inspection = Inspection([source], detector, [deliveries], InspectionOptions(frozen_after_s=0))
            with inspection:
                until = time.monotonic() + PATIENCE_S + 2 * count

                def known() -> int:
                    return inspection.summary.frames + inspection.dropped()[source.name]

                def look() -> None:
                    if (camera.silent and known() == camera.sent) or time.monotonic() > until:
                        inspection.stop()

                inspection.run(look)
            dropped, judged = inspection.dropped()[source.name], inspection.summary.frames
        written = len({json.loads(line)["frame"] for line in lines.read_bytes().splitlines()})
    camera.close()
    return {
        "sent": camera.sent,
        "judged": judged,
        "dropped": dropped,
        "written": written,
        "reconnects": source.reconnects,
        "told": len(said),
    }


def run(scale: Scale) -> list[Result]:
    """Lose the camera 100 times, 10 in the short form."""
    count = 10 if scale.short else 100
    found = losses(count)
    missing = max(0, count - found["reconnects"])  # times that it did not come back
    unknown = found["sent"] - found["judged"] - found["dropped"]
    lost = found["judged"] - found["written"]
    details = "{sent} pictures sent, {judged} judged, {dropped} counted as dropped".format(**found)
    return [Result("sources", "network camera gone and back", count, missing + abs(unknown) + lost, details)]


if __name__ == "__main__":
    print(losses(int(sys.argv[1])))
