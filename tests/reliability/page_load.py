"""What readers of the page cost the inspection, and whether the watchdog is answered meanwhile.

The inspection rate of `python -m runtime.infer` with an engine of about 2 ms is counted in turns without and with
500 readers (see `page_readers`); `/health` is asked twenty times a second over new connections.
"""

import contextlib
import http.client
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper
from PIL import Image

from runtime.common.files import sha256_of
from runtime.engines.sidecar import write_sidecar
from tests.reliability.result import Result, Scale
from tests.reliability.turns import Turns, clients
from tests.support.paths import ROOT
from tests.support.tiny_engine import tiny_model, tiny_sidecar

READERS = 500
MOST_LOST = 0.10
SETTLE_S = 1.0  # for all readers to come, and to go
HEALTH_S = 5.0  # a watchdog's patience
SIZE = (32, 48)
WORK = 6  # products of 256 x 256 matrices: about 2 ms


def write_slow_engine(folder: Path) -> Path:
    """Write an engine that takes about 2 ms on one thread, and judges as the tiny one does."""
    model = tiny_model(SIZE, 3.0)
    graph = model.graph
    rng = np.random.default_rng(0)
    graph.initializer.append(numpy_helper.from_array(rng.normal(0, 1 / 16, (256, 256)).astype(np.float32), "w"))
    graph.initializer.append(numpy_helper.from_array(np.array([256, 1], np.int64), "tall"))
    graph.initializer.append(numpy_helper.from_array(np.array(1e-9, np.float32), "little"))
    last = "w0"
    nodes = [
        helper.make_node("ReduceMean", ["float"], ["mean"], keepdims=0),
        helper.make_node("Add", ["w", "mean"], [last]),
    ]
    for i in range(WORK):
        nodes += [helper.make_node("MatMul", [last, "w"], [f"p{i}"]), helper.make_node("Tanh", [f"p{i}"], [f"t{i}"])]
        last = f"t{i}"
    nodes += [
        helper.make_node("ReduceMean", [last], ["one"], keepdims=0),
        helper.make_node("Mul", ["one", "little"], ["none"]),
        helper.make_node("Add", ["grey", "none"], ["worked"]),
    ]
    place = next(i for i, node in enumerate(graph.node) if "grey" in node.input)
    graph.node[place].input[0] = "worked"
    for i, node in enumerate(nodes):
        graph.node.insert(place + i, node)
    path = folder / "slow.onnx"
    onnx.save(model, path)
    write_sidecar(path, tiny_sidecar(path, SIZE, ("layer2", "layer3", "layer4")))
    assert sha256_of(path)
    return path


def write_images(folder: Path, number: int) -> None:
    folder.mkdir()
    for i in range(number):
        path = folder / f"{i:06d}.png"
        if i < 20:
            Image.fromarray(np.full((*SIZE, 3), 4 * i, np.uint8)).save(path)
        else:
            os.link(folder / f"{i % 20:06d}.png", path)


@contextlib.contextmanager
def inspecting(
    folder: Path, frames: int, options: Sequence[str] = ("--serve", "0"), said: str = r"^page: http://[^:]*:(\d+)/"
) -> Iterator[tuple[int, Path]]:
    """Run `runtime.infer` with `options`; gives the port that it says in the form `said`, and the file of its lines."""
    engine = write_slow_engine(folder)
    write_images(folder / "images", frames)
    lines = folder / "lines.txt"
    command = [sys.executable, "-m", "runtime.infer", "--engine", str(engine), "--source", str(folder / "images")]
    environment = {name: value for name, value in os.environ.items() if name != "CFLOW_TOKEN"}
    with lines.open("wb") as out:
        process = subprocess.Popen(
            [*command, *options, "--threads", "1"],
            cwd=ROOT, env=environment, stdout=out, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    try:
        assert process.stderr is not None
        port = next(int(m[1]) for line in process.stderr if (m := re.search(said, line)))
        threading.Thread(target=process.stderr.read, daemon=True).start()
        yield port, lines
        assert process.poll() is None, "the images were too few"
    finally:
        process.kill()
        process.wait()


class _Watchdog(threading.Thread):
    """Asks `/health` until `stop`; `late` counts answers that did not come in `HEALTH_S`."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self._port = port
        self._stop_asking = threading.Event()
        self.took_s: list[float] = []
        self.late = 0

    def run(self) -> None:
        while not self._stop_asking.wait(0.05):
            started = time.perf_counter()
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=HEALTH_S)
            try:
                connection.request("GET", "/health")
                self.late += connection.getresponse().status != 200
            except OSError:
                self.late += 1
            finally:
                connection.close()
            self.took_s.append(time.perf_counter() - started)

    def stop(self) -> None:
        """Let the last answer come, and end."""
        self._stop_asking.set()
        self.join()


def measure(rounds: int, seconds: float, readers: int = READERS) -> list[Result]:
    """Return the two rows: what `readers` cost in `rounds` turns of `seconds` each, and the watchdog's answers."""
    turns = Turns(rounds, seconds, SETTLE_S)
    with (
        tempfile.TemporaryDirectory() as folder,
        inspecting(Path(folder), turns.frames) as (port, lines),
    ):
        time.sleep(1.0)
        watchdog = _Watchdog(port)
        watchdog.start()
        turns.take(lines, lambda: clients("page_readers", str(port), str(readers), patience_s=20.0))
        watchdog.stop()
    name, failed = f"{readers} readers and stalled clients", int(turns.told and turns.lost > MOST_LOST)
    slowest = f"slowest answer {max(watchdog.took_s):.2f} s"
    return [
        Result("page", name, rounds if turns.told else 0, failed, turns.details),
        Result("page", "/health meanwhile", len(watchdog.took_s), watchdog.late, slowest),
    ]


def run(scale: Scale) -> list[Result]:
    """Return the rows of the table; see the package."""
    return measure(4, 1.0) if scale.short else measure(10, 5.0)


if __name__ == "__main__":
    for row in measure(int(sys.argv[1]), float(sys.argv[2])):
        print(row)
