"""How long an answer takes from its trigger to where a controller can read it: `python -m tests.bench.answer_times`.

A trigger is taken, a frame judged by a real engine, and its answer written by a real server through a sink's queue.
Printed are milliseconds beyond the engine's own "total", so that they hold for any engine.
"""

import argparse
import queue
import threading
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from runtime.controller.board import Board
from runtime.controller.modbus import ModbusOptions, ModbusServer
from runtime.controller.opcua import OpcuaServer
from runtime.controller.opcua_nodes import About
from runtime.controller.opcua_options import OpcuaOptions
from runtime.detector import Detector, load
from runtime.sinks.delivery import Delivery
from runtime.sinks.judgement import Judgement
from runtime.sources.frame import Frame
from runtime.triggers.trigger import Trigger
from tests.support.tiny_engine import write_tiny_engine

SOURCE = "line"
LIBRARIES = {"modbus": "pymodbus", "opcua": "asyncua"}
SIZE = (32, 48)


class _Timed:
    """The server as a sink, whose answers are noted when they can be read."""

    def __init__(self, server: ModbusServer | OpcuaServer) -> None:
        self.name, self.queueing = server.name, server.queueing
        self.beyond_ms: list[float] = []
        self._server = server
        self.written = threading.Event()

    def write(self, judgement: Judgement) -> None:
        """Write, and note what it took since the trigger beyond the engine's time."""
        self._server.write(judgement)
        assert judgement.trigger is not None
        took_ms = 1e3 * (time.monotonic() - judgement.trigger.asked_s)
        self.beyond_ms.append(took_ms - judgement.result.latency_ms["total"])
        self.written.set()

    def close(self) -> None:
        """The server is closed elsewhere."""


def _judge(detector: Detector, asked: "queue.SimpleQueue[Trigger | None]", delivery: Delivery, board: Board) -> None:
    """Judge a frame for each trigger, as the inspection's thread does."""
    image = np.full((*SIZE, 3), 50, np.uint8)
    number = 0
    while (trigger := asked.get()) is not None:
        board.beat()
        frame = Frame(image, f"f{number}", number, time.time())
        delivery.offer(Judgement(SOURCE, frame, detector(image), trigger=trigger))
        number += 1


def measure(kind: str, parts: int) -> list[float]:
    """Return for each of `parts` the milliseconds beyond the engine's own."""
    board = Board([SOURCE])
    asked: queue.SimpleQueue[Trigger | None] = queue.SimpleQueue()
    with TemporaryDirectory() as folder, load(write_tiny_engine(Path(folder), size=SIZE), threads=1) as detector:
        server = (
            ModbusServer(ModbusOptions.parse("0"), board)
            if kind == "modbus"
            else OpcuaServer(OpcuaOptions.parse("0"), board, About())
        )
        with server:
            timed = _Timed(server)
            delivery = Delivery(timed)  # type: ignore[arg-type]
            judging = threading.Thread(target=_judge, args=(detector, asked, delivery, board))
            judging.start()
            triggers = server.triggers[kind]
            triggers.start(lambda trigger: asked.put(trigger) or "")
            for number in range(parts):
                timed.written.clear()
                assert not triggers.ask(f"SN{number}")  # type: ignore[attr-defined]
                timed.written.wait()
            asked.put(None)
            judging.join()
            delivery.close()
    return timed.beyond_ms


def main(argv: Sequence[str] | None = None) -> None:
    """Print a line for each protocol whose library is there."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.answer_times", description=__doc__)
    parser.add_argument("--parts", type=int, default=1000, help="triggers for each protocol (1000)")
    parts = parser.parse_args(argv).parts
    for kind, library in LIBRARIES.items():
        if find_spec(library):
            p50, p99, most = np.percentile(measure(kind, parts), (50, 99, 100))
            print(f"{kind}: {parts} parts, beyond the engine p50 {p50:.2f} ms, p99 {p99:.2f} ms, most {most:.2f} ms")


if __name__ == "__main__":
    main()
