"""What `runtime.infer` takes of memory and time on 12-megapixel frames: `python -m tests.bench.large_frames`.

A tiny engine stands in for the detector unless one is named, so that what is measured is the runtime: sources, queues,
overlays, page, events, log, shadow. A process of its own is run and watched from outside.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import psutil

from runtime.engines.sidecar import read_sidecar
from runtime.images.tiles import TileGrid
from tests.bench.cases import picture
from tests.support.snapshot_server import SnapshotServer
from tests.support.tiny_engine import write_tiny_engine

GRID = TileGrid((3000, 4096), (512, 512), 64)
FRAMES, DEFECTS_EVERY = 12, 2
LOOK_S = 0.01


@dataclass(frozen=True)
class Measured:
    """`peak_mb` of the inspection's own memory, in the page's and the candidate's process `beside_mb`; `status`."""

    frames: int
    seconds: float
    peak_mb: float
    beside_mb: float
    status: int


def write_frames(folder: Path, size: tuple[int, int], count: int) -> None:
    """Write frames as a camera has them, dark for the tiny engine, every other one with a defect of a few pixels."""
    import cv2

    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for index in range(count):
        image = picture(*size, seed=index) // 4
        if index % DEFECTS_EVERY:
            row, column = (int(rng.integers(side - 8)) for side in size)
            image[row : row + 6, column : column + 8] = 240
        cv2.imwrite(str(folder / f"part_{index:03d}.png"), image, [cv2.IMWRITE_PNG_COMPRESSION, 1])


def infer(engine: Path, arguments: Sequence[str]) -> Measured:
    """Run `runtime.infer` and return what it took; a page is looked at as a browser does."""
    command = [sys.executable, "-m", "runtime.infer", "--engine", str(engine), *arguments]
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    lines: list[str] = []
    reading = threading.Thread(target=lambda: lines.extend(process.stdout or ()), daemon=True)
    reading.start()
    watched, peak, beside = psutil.Process(process.pid), 0, 0
    while process.poll() is None:
        try:
            peak = max(peak, watched.memory_info().rss)
            beside = max(beside, sum(child.memory_info().rss for child in watched.children(recursive=True)))
        except psutil.Error:
            pass
        time.sleep(LOOK_S)
    reading.join()
    judged = sum(json.loads(line)["verdict"] != "none" for line in lines if line.startswith("{"))
    return Measured(judged, time.monotonic() - began, peak / 1e6, beside / 1e6, process.returncode)


@contextlib.contextmanager
def camera(frames: Path) -> Iterator[str]:
    """Serve the frames as a network camera does, another one with each request; yield its address."""
    import cv2

    server, stop = SnapshotServer(), threading.Event()
    quality = [cv2.IMWRITE_JPEG_QUALITY, 95]
    pictures = [bytes(cv2.imencode(".jpg", cv2.imread(str(path)), quality)[1]) for path in sorted(frames.iterdir())]

    def rotate() -> None:
        while not stop.wait(0.02):
            server.content = pictures[server.asked % len(pictures)]

    turning = threading.Thread(target=rotate)
    turning.start()
    try:
        yield f"http://127.0.0.1:{server.port}/picture.jpg"
    finally:
        stop.set()
        turning.join()
        server.close()


def arguments_of(folder: Path, frames: Path, *more: str) -> list[str]:
    """Return what asks for everything that keeps frames: page, events, log and overlays."""
    kept = ["--events", str(folder / "events"), "--log", str(folder / "log.db"), "--output", str(folder / "out")]
    return ["--source", str(frames), "--json", "--serve", "127.0.0.1:0", *kept, *more]


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, and print a JSON object a run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", type=Path, help="a tiled engine (default: a tiny one of 3000x4096)")
    parser.add_argument("--frames", type=int, default=FRAMES, metavar="N", help="frames (default: %(default)s)")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as kept:
        folder = Path(kept)
        engine = args.engine or write_tiny_engine(folder, "tiled", tiles=GRID)
        write_frames(folder / "frames", read_sidecar(engine).input_size, args.frames)
        other = write_tiny_engine(folder, "other", size=(256, 256), threshold=1.5)
        runs = {
            "lines alone": ["--source", str(folder / "frames"), "--json"],
            "page, events, log, overlays": arguments_of(folder, folder / "frames"),
            "with a candidate in shadow": arguments_of(folder / "shadow", folder / "frames", "--shadow", str(other)),
        }
        for name, arguments in runs.items():
            print(json.dumps({"run": name, **asdict(infer(engine, arguments))}), flush=True)
        with camera(folder / "frames") as address:
            arguments = arguments_of(folder / "live", folder / "frames", "--limit", str(args.frames))
            arguments[1] = address
            print(json.dumps({"run": "a camera, page, events, log, overlays", **asdict(infer(engine, arguments))}))


if __name__ == "__main__":
    main()
