"""What the runtime costs around the session: python -m runtime.overhead --engine cable.onnx.

Frames come from memory as a camera's driver leaves them there (BGR), and go the way of `runtime.infer`: source, feed,
detector, queue, JSON line in a file. The overhead of a frame is the time from one result to the next without the
session's own stages. The parts of the JSON line, which a thread of its own makes, are timed apart.
With `--log` it is what 1,000 good judgements a second into an inspection log cost the inspection beside it.
With `--serve` it is what the page costs, with nobody looking, viewers, and clients that ask and never read, in turn.
These are a process of their own on the same machine: on few cores they take a share of it themselves.
With `--trigger` it is the time from a trigger to the JSON line that answers it, one part after the other.
"""

import argparse
import http.client
import json
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from timeit import repeat
from types import SimpleNamespace

import numpy as np

from runtime.common.argument_types import count
from runtime.common.errors import run_command
from runtime.common.program import program_name
from runtime.common.summary import Summary
from runtime.detector import Detector, load
from runtime.engines.backends import add_arguments, load_options
from runtime.images.opencv import opencv
from runtime.images.pixels import Image8
from runtime.images.regions import regions_above
from runtime.inspection import Inspection
from runtime.records.log import Log
from runtime.sinks.delivery import Deliveries
from runtime.sinks.inspection_log import LogSink
from runtime.sinks.json_lines import JsonLines, LinesSink, as_json, encode
from runtime.sinks.judgement import Judgement
from runtime.sources.frame import Frame, Source
from runtime.triggers.options import TriggerOptions
from runtime.triggers.orders import Orders
from runtime.triggers.trigger import Trigger

HEIGHT, WIDTH = 480, 640  # of the frames, in pixels
WARM_UP = 20  # frames that do not count
LOGGED = 1000  # judgements a second
SESSION = ("copy_in", "execute", "copy_out")  # the session's own stages


class Generated(Source):
    """Frames of `images` that are made as they are asked for; `read` counts them, and all are to be judged."""

    live = False

    def __init__(self, name: str, images: Iterable[Image8]) -> None:
        self.name, self.read = name, 0
        self._images, self._closed = images, False

    def __iter__(self) -> Iterator[Frame]:
        for image in self._images:
            if self._closed:
                return
            index, self.read = self.read, self.read + 1
            yield Frame(image, f"frame_{index:08d}", index, time.time())

    def close(self) -> None:
        """End the iteration at the next frame."""
        self._closed = True


def from_memory(frames: int, convert_ms: list[float]) -> Iterator[Image8]:
    """Yield `frames` images as captures do: turned from BGR to RGB, which takes `convert_ms`."""
    cv2 = opencv()
    coarse = np.random.default_rng(0).integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3), np.uint8)
    bgr = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    for _ in range(frames):
        started = time.perf_counter()
        image = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
        convert_ms.append(1e3 * (time.perf_counter() - started))
        yield image


def judge_all(source: Source, detector: Detector, lines: Path, also: Callable[[Judgement], None]) -> Summary:
    """Judge every frame of `source` as `runtime.infer` does, into JSON lines and `also`."""
    with (
        Deliveries([LinesSink(lines)], patience_s=30.0) as deliveries,  # a file's frames wait for a slow disk
        Inspection([source], detector, [deliveries, SimpleNamespace(offer=also)]) as inspection,
    ):
        inspection.run()
    return inspection.summary


def measure(detector: Detector, frames: int, folder: Path) -> dict[str, list[float]]:
    """Return every frame's milliseconds by stage; "overhead" is all but the session, the line's parts are last."""
    convert_ms, last = list[float](), list[Judgement]()
    noted: list[tuple[float, dict[str, float]]] = []

    def note(judgement: Judgement) -> None:
        noted.append((time.perf_counter(), judgement.result.latency_ms))
        last[:] = [judgement]

    source = Generated("memory", from_memory(frames + WARM_UP + 1, convert_ms))
    judge_all(source, detector, folder / "frames.jsonl", note)
    whole_ms = 1e3 * np.diff([ended_s for ended_s, _ in noted])[WARM_UP:]
    counted = [stages for _, stages in noted[WARM_UP + 1 :]]
    session_ms = [sum(stages.get(stage, 0.0) for stage in SESSION) for stages in counted]
    return {
        "convert (capture's thread)": convert_ms[WARM_UP + 1 :],
        **{stage: [stages[stage] for stages in counted] for stage in counted[0] if stage != "total"},
        "overhead": list(whole_ms - session_ms),
        **_line_parts(last[0], frames, folder),
    }


def _line_parts(judgement: Judgement, rounds: int, folder: Path) -> dict[str, list[float]]:
    """Time the parts of one judgement's JSON line, without anything beside it."""
    result, size, line = judgement.result, judgement.frame.image.shape[:2], as_json(judgement)
    empty = replace(judgement, result=replace(result, anomaly_map=np.zeros((1, 1), np.float32), map_threshold=1.0))
    with closing(JsonLines(folder / "parts.jsonl")) as lines:
        parts: dict[str, Callable[[], object]] = {
            "boxes (sink's thread)": lambda: regions_above(result.anomaly_map, result.map_threshold, size),
            "line without boxes (sink's thread)": lambda: encode(as_json(empty)),
            "write (sink's thread)": lambda: lines.append(line),
        }
        return {name: (1e3 * np.array(repeat(part, number=1, repeat=rounds))).tolist() for name, part in parts.items()}


def text(stages: dict[str, list[float]], device: str) -> str:
    """Return the table for a person: the median and the lowest decile by stage."""
    lines = [f"frames of {WIDTH}x{HEIGHT}, {device}", f"{'milliseconds':<36}{'median':>9}{'p10':>9}"]
    for stage, values in stages.items():
        median, low = np.percentile(values, (50, 10))
        lines.append(f"  {stage:<34}{median:9.3f}{low:9.3f}")
    return "\n".join(lines)


class _Noted(LinesSink):
    """Notes when each line was written."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.written: list[tuple[Judgement, float]] = []
        self._changed = threading.Condition()

    def write(self, judgement: Judgement) -> None:
        """Append one line."""
        super().write(judgement)
        with self._changed:
            self.written.append((judgement, time.monotonic()))
            self._changed.notify_all()

    def wait_for(self, lines: int) -> None:
        """Wait until so many were written."""
        with self._changed:
            self._changed.wait_for(lambda: len(self.written) >= lines)


def trigger_overhead(detector: Detector, parts: int, folder: Path) -> str:
    """Return the table of `parts` triggers, in milliseconds from the trigger to its written line, and the execution."""
    orders, noted = Orders(TriggerOptions(deadline_s=60.0)), _Noted(folder / "frames.jsonl")
    source = Generated("memory", from_memory(parts + WARM_UP, []))
    with Deliveries([noted]) as deliveries, Inspection([source], detector, [deliveries], orders=orders) as inspection:
        judging = threading.Thread(target=inspection.run)
        judging.start()
        for number in range(1, parts + WARM_UP + 1):
            orders.take(Trigger("", time.monotonic(), "bench"))
            noted.wait_for(number)
        judging.join()
    counted = noted.written[WARM_UP:]
    whole = [1e3 * (written_s - j.trigger.asked_s) for j, written_s in counted if j.trigger is not None]
    execute = [sum(j.result.latency_ms.get(stage, 0.0) for stage in SESSION) for j, _ in counted]
    rows = {"trigger to written verdict": whole, "execution": execute, "difference": np.subtract(whole, execute)}
    lines = [f"{parts} parts, {detector.session.device}", f"{'milliseconds':<36}{'p50':>9}{'p99':>9}"]
    for name, values in rows.items():
        p50, p99 = np.percentile(values, (50, 99))
        lines.append(f"  {name:<34}{p50:9.3f}{p99:9.3f}")
    ratio = np.percentile(whole, 99) / np.percentile(execute, 99)
    return "\n".join([*lines, f"p99 of the trigger to its verdict is {ratio:.3f} times p99 of the execution"])


def page_overhead(detector: Detector, engine: Path, frames: int, rounds: int, viewers: int) -> str:
    """Return the table: medians over the rounds, and the best round, which other work disturbed least."""
    from runtime.serve.address import Address
    from runtime.serve.server import ServeOptions, Server
    from runtime.serve.status import SourceStatus

    cases = {"no page": 0, "nobody looks": 0, "1 looks": 1, f"{viewers} look": viewers}
    cases[f"{viewers} do not read"] = viewers
    rows: dict[str, list[tuple[float, float]]] = {name: [] for name in cases}
    sources = [SourceStatus("memory", True)]
    with Server(ServeOptions(Address("127.0.0.1", 0)), detector, engine, lambda: sources) as server:
        _judge(detector, frames, server.offer)  # warm-up
        for _ in range(rounds):
            for name, clients in cases.items():
                work = (clients, _never_read if name.endswith("do not read") else _look, server.address.port)
                process = get_context("spawn").Process(target=_run, args=work, daemon=True)
                process.start()
                time.sleep(1.0)
                rows[name].append(_judge(detector, frames, server.offer if name != "no page" else lambda _: None))
                process.kill()
                process.join()
    lines = [f"{'':<18}{'ms a frame':>12}{'best round':>12}{'µs to offer':>14}   (medians of {rounds} rounds in turn)"]
    for name, values in rows.items():
        ms, us = np.median(values, axis=0).tolist()
        lines.append(f"{name:<18}{ms:>12.2f}{min(values)[0]:>12.2f}" + (f"{us:>14.1f}" if name != "no page" else ""))
    return "\n".join(lines)


def log_overhead(detector: Detector, frames: int, rounds: int, folder: Path) -> str:
    """Return the table: frames judged without a log, and beside one that is given `LOGGED` judgements, in turn."""
    plain, beside, logged_s = list[float](), list[float](), 0.0
    image = next(from_memory(1, []))
    good = replace(detector(image), verdict="good", map_threshold=detector.sidecar.score_maximum)  # without boxes
    judgement = Judgement("memory", Frame(image, "frame", 0, time.time()), good)
    with Deliveries([LogSink(Log(folder / "inspections.db"))]) as deliveries:  # no wait, as for cameras
        _judge(detector, frames, lambda _: None)  # warm-up
        for _ in range(rounds):
            plain.append(_judge(detector, frames, lambda _: None)[0])
            started_s = time.perf_counter()
            with _fed(deliveries, judgement):
                beside.append(_judge(detector, frames, lambda _: None)[0])
            logged_s += time.perf_counter() - started_s
    (counts,) = deliveries.counts()
    without, with_log = (float(np.median(values)) for values in (plain, beside))
    return "\n".join(
        [
            f"{'':<18}{'ms a frame':>12}{'best round':>12}   (medians of {rounds} rounds in turn)",
            f"{'no log':<18}{without:>12.2f}{min(plain):>12.2f}",
            f"{'beside a log':<18}{with_log:>12.2f}{min(beside):>12.2f}",
            f"ratio {with_log / without:.3f}, of the best rounds {min(beside) / min(plain):.3f}",
            f"{counts.text()}; {counts.delivered / logged_s:.0f} a second",
        ]
    )


@contextmanager
def _fed(deliveries: Deliveries, judgement: Judgement) -> Iterator[None]:
    """Offer `judgement` `LOGGED` times a second, as other cameras would."""
    ended, began_s = threading.Event(), time.perf_counter()

    def feed() -> None:
        offered = 0
        while not ended.wait(0.01):
            due = int(LOGGED * (time.perf_counter() - began_s))
            for _ in range(due - offered):
                deliveries.offer(judgement)
            offered = due

    thread = threading.Thread(target=feed)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _judge(detector: Detector, frames: int, offer: Callable[[Judgement], None]) -> tuple[float, float]:
    """Return the median milliseconds a frame, and the median microseconds of offering it to the page."""
    stamps_s = []
    for frame in Generated("memory", from_memory(frames, [])):
        started_s, result, judged_s = time.perf_counter(), detector(frame.image), time.perf_counter()
        offer(Judgement("memory", frame, result))
        stamps_s.append((started_s, judged_s, time.perf_counter()))
    started, judged, offered = np.array(stamps_s).T
    return 1e3 * float(np.median(offered - started)), 1e6 * float(np.median(offered - judged))


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


def open_engine(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> tuple[argparse.Namespace, Detector]:
    """Return what a command line says and the engine that it names."""
    parser.add_argument("--engine", type=Path, required=True, metavar="FILE", help="a .plan or .onnx with its .json")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads of an .onnx (default: all cores)")
    add_arguments(parser)
    arguments = parser.parse_args(argv)
    return arguments, load(arguments.engine, threads=arguments.threads, **load_options(arguments))


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(prog=program_name("python -m runtime.overhead"), description=__doc__)
    add = parser.add_argument
    add("--frames", type=count, default=300, metavar="N", help="frames that count (default: %(default)s)")
    ways = parser.add_mutually_exclusive_group()
    ways.add_argument(
        "--serve", action="store_true", help="measure instead what the page costs: --frames of each case in a round"
    )
    ways.add_argument(
        "--log", action="store_true", help="measure instead what an inspection log costs, in the same way"
    )
    ways.add_argument(
        "--trigger", action="store_true", help="measure instead from a trigger to its written verdict, --frames parts"
    )
    add("--viewers", type=count, default=20, metavar="N", help="with --serve: clients (default: %(default)s)")
    add("--rounds", type=count, default=5, metavar="N", help="with --serve or --log: rounds (default: %(default)s)")
    args, detector = open_engine(parser, argv)
    with detector, tempfile.TemporaryDirectory() as folder:
        if args.trigger:
            print(trigger_overhead(detector, args.frames, Path(folder)))
        elif args.serve:
            print(page_overhead(detector, args.engine, args.frames, args.rounds, args.viewers))
        elif args.log:
            print(log_overhead(detector, args.frames, args.rounds, Path(folder)))
        else:
            print(text(measure(detector, args.frames, Path(folder)), detector.session.device))


def command() -> int:
    """Run `main` as a program: the exit status."""
    return run_command(main)


if __name__ == "__main__":
    sys.exit(command())
