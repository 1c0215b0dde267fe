"""Pictures for the page, drawn in one thread of their own: the live view while somebody looks, and last anomalies.

The thread looks for work ten times a second and is never woken by a frame: a thread that is woken wants Python's
lock at once. It rests at least `REST` times as long as it has worked, so that drawing takes no more than a share of
one core, and of that lock, from the inspection.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from runtime.images.pixels import is_large
from runtime.images.reduced_map import SMALL_MAP, empty_map
from runtime.result import Result
from runtime.serve.closer import NOTHING_CLOSER, Closer, closer_to, jpeg_of
from runtime.shadow.disagreements import SAME_EVENT_S
from runtime.sinks.judgement import Judgement

LIVE_WIDTH = 960  # pixels; wider frames are scaled down before drawing
ANOMALY_WIDTH = 480
OVERVIEW_WIDTH = 1280  # of an anomaly in a large frame, whose crops are shown beside it
INTERVAL_S = 0.1  # at most 10 pictures a second, however fast the inspection
REST = 4.0
QUALITY = 80  # of JPEG
KEPT = 24  # anomalies
PENDING = 4  # anomalies that wait to be drawn, each with its whole frame; the oldest gives way
PENDING_BYTES = 96 << 20  # of them; one always fits
CROPS_BYTES = 48 << 20  # of all crops kept; the oldest anomaly's go first
FRESH_S = 1.0  # a live picture older than this is not shown to somebody who comes new


@dataclass(frozen=True, eq=False)
class Jpeg:
    """A JPEG of judgement `number`, drawn at `drawn_s` (monotonic), and what the judgement was, without its map."""

    number: int
    result: Result
    jpeg: bytes
    drawn_s: float


@dataclass(eq=False)
class Anomaly:
    """An event: its highest score so far; `frames` of it were alarming, the last captured at `last_s`.

    `number` is that of the judgement with the highest score. `jpeg` shows judgement `picture`, the one drawn last;
    `undrawn` is one with a higher score that waits to be drawn. `closer` is what a large frame's picture is too small
    for.
    """

    number: int
    source: str
    name: str
    captured_s: float
    score: float | None  # None: no verdict
    threshold: float
    last_s: float
    undrawn: Judgement | None
    reason: str = ""
    frames: int = 1
    picture: int = 0
    jpeg: bytes = b""
    closer: Closer = NOTHING_CLOSER


def _anomaly(number: int, judgement: Judgement) -> Anomaly:
    frame, result = judgement.frame, judgement.result
    of_frame = (judgement.source, frame.name, frame.captured_s, result.score, result.threshold)
    return Anomaly(number, *of_frame, frame.captured_s, judgement, result.reason)


class Pictures:
    """Takes judgements from the inspection (`offer`: no drawing, no waiting) and hands out JPEGs.

    `maximum` is the largest score of the engine. `is_live(source)` says whether successive anomalies of a source are
    one event (a camera's) or parts of their own (files). In the drawing thread `failed(error)` is called
    for a picture that could not be drawn, and `shown(kind, number, judgement)` before one is handed out. `idle()` is
    called there too, after every round.
    """

    def __init__(
        self,
        maximum: float,
        is_live: Callable[[str], bool],
        failed: Callable[[Exception], None],
        shown: Callable[[str, int, Judgement], None] = lambda kind, number, judgement: None,
        idle: Callable[[], None] = lambda: None,
    ) -> None:
        self._idle = idle
        self._shown = shown
        self._maximum = maximum
        self._is_live = is_live
        self._failed = failed
        self._lock = threading.Lock()
        self._newest: dict[str, tuple[int, Judgement]] = {}
        self._wanted: dict[str, None] = {}  # in the order in which they were asked for, so that each has its turn
        self._live: dict[str, Jpeg] = {}
        self._anomalies: deque[Anomaly] = deque(maxlen=KEPT)
        self._stop = threading.Event()
        self.drawn = 0
        self._thread = threading.Thread(target=self._work, name="page pictures", daemon=True)
        self._thread.start()

    def offer(self, number: int, judgement: Judgement) -> None:
        """Remember the newest frame of each source and queue anomalies; frees the caller at once."""
        with self._lock:
            self._newest[judgement.source] = (number, judgement)
            if judgement.alarming:
                self._add_anomaly(number, judgement)

    def live(self, source: str, after: int) -> Jpeg | None:
        """Return a live picture newer than `after`, or None and have one drawn."""
        with self._lock:
            picture = self._live.get(source)
            if picture and picture.number > after and time.monotonic() - picture.drawn_s < FRESH_S:
                return picture
            newest = self._newest.get(source)
            if picture and newest and picture.number == newest[0] > after:
                return picture  # the last frame there was
            self._wanted.setdefault(source)
            return None

    def anomalies(self) -> list[Anomaly]:
        """Return copies of the last anomalies that have a picture, the newest first."""
        with self._lock:
            return [replace(anomaly) for anomaly in reversed(self._anomalies) if anomaly.jpeg]

    def close(self) -> None:
        """Stop drawing; a second call does nothing."""
        self._stop.set()
        self._thread.join(5.0)

    def _work(self) -> None:
        rest = 0.0
        while not self._stop.wait(max(rest, INTERVAL_S)):
            started = time.monotonic()
            self._try(self._reduce_newest)
            self._try(self._draw_anomaly)
            self._try(self._draw_live)
            rest = REST * (time.monotonic() - started)
            self._try(self._idle)  # where no lock of Python's is held for long

    def _try(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception as error:  # a picture less, and the inspection goes on
            self._failed(error)

    def _next_live(self) -> str | None:
        for source in self._wanted:
            newest, drawn = self._newest.get(source), self._live.get(source)
            if newest and (drawn is None or drawn.number < newest[0]):
                return source
        return None

    def _draw_live(self) -> None:
        with self._lock:
            source = self._next_live()
            if source is None:
                return
            del self._wanted[source]
            number, judgement = self._newest[source]
        shown = replace(judgement.result, anomaly_map=empty_map(judgement.result.anomaly_map))
        picture = Jpeg(number, shown, self._jpeg(judgement, LIVE_WIDTH), time.monotonic())
        self._shown("live", number, judgement)
        with self._lock:
            self._live[source] = picture
            self.drawn += 1

    def _reduce_newest(self) -> None:
        """Let go of large maps that wait for somebody to look: what is drawn of them is reduced in any case."""
        with self._lock:
            newest = list(self._newest.items())
        for source, (number, judgement) in newest:
            try:
                reduced = judgement.with_map_of(SMALL_MAP) if judgement.has_large_map else None
            except Exception:
                with self._lock:  # or it would be tried again ten times a second
                    self._newest.pop(source, None)
                raise
            with self._lock:
                if reduced is not None and self._newest[source][0] == number:
                    self._newest[source] = (number, reduced)

    def _add_anomaly(self, number: int, judgement: Judgement) -> None:
        """Make `judgement` part of the event that it goes on with, or the first of a new one."""
        event, new = self._event_of(judgement), _anomaly(number, judgement)
        if event is None:
            self._anomalies.append(new)
        elif (new.score or 0.0) > (event.score or 0.0):
            new.frames, new.picture = event.frames + 1, event.picture
            new.jpeg, new.closer = event.jpeg, event.closer
            self._anomalies[self._anomalies.index(event)] = new
        else:
            event.frames, event.last_s = event.frames + 1, new.last_s
        undrawn = [anomaly for anomaly in self._anomalies if anomaly.undrawn]
        while len(undrawn) > PENDING or (len(undrawn) > 1 and _waiting_bytes(undrawn) > PENDING_BYTES):
            undrawn.pop(0).undrawn = None

    def _event_of(self, judgement: Judgement) -> Anomaly | None:
        """Return the newest event of a live source if `judgement` goes on with it."""
        if not self._is_live(judgement.source):
            return None
        for event in reversed(self._anomalies):
            if event.source == judgement.source:
                return event if abs(judgement.frame.captured_s - event.last_s) < SAME_EVENT_S else None
        return None

    def _next_anomaly(self) -> Anomaly | None:
        """Return the newest that has to be drawn."""
        return next((anomaly for anomaly in reversed(self._anomalies) if anomaly.undrawn), None)

    def _draw_anomaly(self) -> None:
        with self._lock:
            anomaly = self._next_anomaly()
            if anomaly is None or anomaly.undrawn is None:
                return
            judgement, anomaly.undrawn = anomaly.undrawn, None
            number = anomaly.number
        large = is_large(judgement.frame.image)
        closer = closer_to(judgement) if large else NOTHING_CLOSER
        jpeg = self._jpeg(judgement, OVERVIEW_WIDTH if large else ANOMALY_WIDTH)
        self._shown("anomaly", number, judgement)
        with self._lock:
            anomaly.picture, anomaly.jpeg, anomaly.closer = number, jpeg, closer
            kept = 0
            for one in reversed(self._anomalies):
                kept += one.closer.nbytes
                if kept > CROPS_BYTES and one is not anomaly:
                    one.closer = NOTHING_CLOSER

    def _jpeg(self, judgement: Judgement, width: int) -> bytes:
        return jpeg_of(judgement.small_overlay(self._maximum, width), QUALITY)


def _waiting_bytes(undrawn: Sequence[Anomaly]) -> int:
    return sum(one.undrawn.nbytes for one in undrawn if one.undrawn is not None)
