"""What an inspection log costs the inspection beside it."""

import math
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from runtime.detector import Detector
from runtime.overheads.generated import HEIGHT, WIDTH, from_memory
from runtime.overheads.timing import ratios, time_frames
from runtime.records.log import Log
from runtime.result import Result
from runtime.sinks.delivery import Deliveries
from runtime.sinks.inspection_log import LogSink
from runtime.sinks.judgement import Judgement
from runtime.sources.frame import Frame

LOGGED = 1000  # judgements a second, or more
BOXES = 5  # in each of those that have some


def log_overhead(detector: Detector, frames: int, rounds: int, folder: Path) -> str:
    """Return the table: frames judged without a log, and beside one that is given `LOGGED` judgements, in turn."""
    result = detector(next(from_memory(1, [])))
    fed = {f"{boxes} boxes a row": _Fed(with_boxes(result, boxes)) for boxes in (0, BOXES)}
    plain, beside = list[float](), {name: list[float]() for name in fed}
    with ExitStack() as stack:
        for name, feeding in fed.items():  # no wait, as for cameras
            feeding.deliveries = stack.enter_context(Deliveries([LogSink(Log(folder / f"{name}.db"))]))
        time_frames(detector, frames, lambda _: None)  # warm-up
        for _ in range(rounds):
            plain.append(time_frames(detector, frames, lambda _: None)[0])
            for name, feeding in fed.items():
                with feeding.going():
                    beside[name].append(time_frames(detector, frames, lambda _: None)[0])
    lines = [f"{'':<18}{'ms a frame':>12}{'best round':>12}   (medians of {rounds} rounds in turn)"]
    lines.append(f"{'no log':<18}{np.median(plain):>12.2f}{min(plain):>12.2f}")
    for name, ms in beside.items():
        lines.append(f"{name:<18}{np.median(ms):>12.2f}{min(ms):>12.2f}   {ratios(ms, plain)}")
    return "\n".join([*lines, *(f"{name}: {feeding.text()}" for name, feeding in fed.items())])


def with_boxes(result: Result, boxes: int) -> Result:
    """Return `result` with a map that has so many places above its threshold."""
    anomaly_map = np.zeros_like(result.anomaly_map)
    apart = anomaly_map[::2, ::2]
    apart.flat[np.linspace(0, apart.size - 1, boxes).astype(int)] = 1.0
    return replace(result, anomaly_map=anomaly_map, map_threshold=0.5)


class _Fed:
    """A log that is offered `LOGGED` judgements of `result` a second, or more, as by other cameras."""

    deliveries: Deliveries

    def __init__(self, result: Result) -> None:
        self._result = result
        self._offered, self._fed_s = 0, 0.0

    @contextmanager
    def going(self) -> Iterator[None]:
        """Offer them until the block ends, and then those that were due by its end."""
        ended, before, began_s = threading.Event(), self._offered, time.perf_counter()

        def feed() -> None:
            last = False
            while not last:
                last = ended.wait(0.01)
                self._offer(before + math.ceil(LOGGED * (time.perf_counter() - began_s)))

        thread = threading.Thread(target=feed)
        thread.start()
        try:
            yield
        finally:
            self._fed_s += time.perf_counter() - began_s
            ended.set()
            thread.join()

    def _offer(self, due: int) -> None:
        image = np.broadcast_to(np.zeros((), np.uint8), (HEIGHT, WIDTH, 3))
        for index in range(self._offered, due):  # each with boxes that nobody has found yet
            self.deliveries.offer(Judgement("memory", Frame(image, "frame", index, time.time()), self._result))
        self._offered = max(self._offered, due)

    def text(self) -> str:
        """Return what became of them; once all are written."""
        (counts,) = self.deliveries.counts()
        rates = (count / self._fed_s for count in (self._offered, counts.delivered))
        return "asked for {:.0f} a second, written {:.0f} a second; ".format(*rates) + counts.text()
