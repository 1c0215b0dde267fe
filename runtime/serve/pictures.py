"""Pictures for the page, drawn in one thread of their own: the live view while somebody looks, and last anomalies.

The thread looks for work ten times a second and is never woken by a frame: a thread that is woken wants Python's
lock at once. It rests at least `REST` times as long as it has worked, so that drawing takes no more than a share of
one core, and of that lock, from the inspection.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

from runtime.images.opencv import opencv
from runtime.images.overlay import draw, thumbnail
from runtime.images.pixels import Image8
from runtime.result import Result
from runtime.sinks.judgement import Judgement

LIVE_WIDTH = 960  # pixels; wider frames are scaled down before drawing
ANOMALY_WIDTH = 480
INTERVAL_S = 0.1  # at most 10 pictures a second, however fast the inspection
REST = 4.0
QUALITY = 80  # of JPEG
KEPT = 24  # anomalies
PENDING = 4  # anomalies that wait to be drawn, each with its whole frame; the oldest gives way
SAME_EVENT_S = 1.0  # anomalies of a live source less than this apart are one event
FRESH_S = 1.0  # a live picture older than this is not shown to somebody who comes new


@dataclass(frozen=True, eq=False)
class Jpeg:
    """A JPEG of judgement `number`, drawn at `drawn_s` (monotonic), and what the judgement was."""

    number: int
    result: Result
    jpeg: bytes
    drawn_s: float


@dataclass(eq=False)
class Anomaly:
    """An event: its highest score so far; `frames` of it were alarming, the last captured at `last_s`.

    `number` is that of the judgement with the highest score. `jpeg` shows judgement `picture`, the one drawn last;
    `undrawn` is one with a higher score that waits to be drawn.
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


def _anomaly(number: int, judgement: Judgement) -> Anomaly:
    frame, result = judgement.frame, judgement.result
    of_frame = (judgement.source, frame.name, frame.captured_s, result.score, result.threshold)
    return Anomaly(number, *of_frame, frame.captured_s, judgement, result.reason)


class Pictures:
    """Takes judgements from the inspection (`offer`: no drawing, no waiting) and hands out JPEGs.

    `maximum` is the largest score of the engine. `is_live(source)` says whether successive anomalies of a source are
    one event (a camera's) or parts of their own (files). In the drawing thread `failed(error)` is called
    for a picture that could not be drawn, and `shown(kind, number, judgement)` before one is handed out.
    """

    def __init__(
        self,
        maximum: float,
        is_live: Callable[[str], bool],
        failed: Callable[[Exception], None],
        shown: Callable[[str, int, Judgement], None] = lambda kind, number, judgement: None,
    ) -> None:
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
            try:
                self._draw_anomaly()
                self._draw_live()
            except Exception as error:  # a picture less, and the inspection goes on
                self._failed(error)
            rest = REST * (time.monotonic() - started)

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
        picture = Jpeg(number, judgement.result, self._jpeg(judgement, LIVE_WIDTH), time.monotonic())
        self._shown("live", number, judgement)
        with self._lock:
            self._live[source] = picture
            self.drawn += 1

    def _add_anomaly(self, number: int, judgement: Judgement) -> None:
        """Make `judgement` part of the event that it goes on with, or the first of a new one."""
        event, new = self._event_of(judgement), _anomaly(number, judgement)
        if event is None:
            self._anomalies.append(new)
        elif (new.score or 0.0) > (event.score or 0.0):
            new.frames, new.picture, new.jpeg = event.frames + 1, event.picture, event.jpeg
            self._anomalies[self._anomalies.index(event)] = new
        else:
            event.frames, event.last_s = event.frames + 1, new.last_s
        undrawn = [anomaly for anomaly in self._anomalies if anomaly.undrawn]
        if len(undrawn) > PENDING:  # each holds a whole frame
            undrawn[0].undrawn = None

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
        jpeg = self._jpeg(judgement, ANOMALY_WIDTH)
        self._shown("anomaly", number, judgement)
        with self._lock:
            anomaly.picture, anomaly.jpeg = number, jpeg

    def _jpeg(self, judgement: Judgement, width: int) -> bytes:
        image: Image8 = judgement.frame.image
        if judgement.parts:
            picture = thumbnail(judgement.overlay(self._maximum), min(width, image.shape[1]))
        elif image.shape[1] > width:  # drawn small, so that the words can be read
            picture = draw(thumbnail(image, width), judgement.result, judgement.of_scale(self._maximum))
        else:
            picture = judgement.overlay(self._maximum)
        cv2 = opencv()
        ok, jpeg = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
        if not ok:
            raise ValueError(f"no JPEG of a picture of shape {picture.shape}")
        return bytes(jpeg)
