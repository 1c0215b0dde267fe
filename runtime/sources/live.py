"""A live source: threads capture all the time, keep the newest frame only, and come back after a loss.

A camera's own queue is latency: judging frame n while n + 1 .. n + 4 wait in a driver's buffers means that each
verdict is late by four frames, for ever. Here what cannot be judged in time is dropped, and counted.

One thread supervises, another reads. `read` may block for as long as a driver likes, so a reader that has gone
silent is replaced: told to stop, waited for briefly, and otherwise left behind until its `read` returns.
"""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from runtime.common.errors import UserError
from runtime.common.notices import say
from runtime.images.pixels import Image8
from runtime.sources.backoff import STALL_AFTER_S, Backoff
from runtime.sources.frame import LOST, Frame, Source
from runtime.sources.naming import live_frame_name
from runtime.sources.reader import Origin, Reader
from runtime.sources.settings import CameraSettings

JOIN_S = 12.0  # V4L2 gives up on a silent camera after 10 s, and only then does `read` return
GRACE_S = 3.0  # for a silent reader to end before another takes its place
MOST_LEFT_BEHIND = 2  # readers stuck in `read` at a time; at that many nothing new is opened until one returns
STEADY_S = 10.0  # a connection that lasted this long starts the next back-off anew; a flapping one waits longer


@dataclass(frozen=True)
class LiveOptions:
    """How a live source bears losses.

    `backoff` None: a loss ends the source with a `UserError`. No frame for `stall_after_s` seconds is a loss too
    (None: silence is none, for cameras with a trigger). `wait`: a source that does not open at the start is treated
    as lost, instead of refused; needs a `backoff`.
    """

    backoff: Backoff | None = None
    stall_after_s: float | None = STALL_AFTER_S
    wait: bool = False
    say: Callable[[str], None] = say


@dataclass(frozen=True)
class Loss:
    """Since when a source has been lost (UTC, and the monotonic clock), and why."""

    since: datetime
    since_s: float
    why: str

    @classmethod
    def now(cls, why: str) -> "Loss":
        """A loss that begins now."""
        return cls(datetime.now(timezone.utc), time.monotonic(), why)


class Live(Source):
    """What `origin` opens, captured from now on. Raises `UserError` if it does not open, unless told to wait.

    Iterating yields each newest frame, waits while the source is lost, and raises `UserError` where it ended.
    """

    live = True

    def __init__(self, origin: Origin, options: LiveOptions | None = None) -> None:
        self.name = origin.name
        self._origin = origin
        self.software_triggered = origin.software_triggered
        self._options = options or LiveOptions()
        self._changed = threading.Condition()  # guards what follows
        self._newest: Frame | None = None
        self._index = 0
        self._dropped = 0
        self._reconnects = 0
        self._reader: Reader | None = None  # whose pictures count
        self._loss: Loss | None = None
        self._ended: str | None = None  # why no frame will follow
        self._stop = threading.Event()
        first = None if self._options.wait else self._start_reader(origin.open())  # which can be set from now on
        self._thread = threading.Thread(target=self._supervise, args=(first,), name=origin.name, daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Frames captured but never yielded."""
        return self._dropped + self._origin.losses.replaced

    @property
    def incomplete(self) -> int:
        """Frames that came with parts missing, and were refused."""
        return self._origin.losses.incomplete

    @property
    def missing(self) -> int:
        """Frames that the camera numbered and that never came."""
        return self._origin.losses.missing

    @property
    def reconnects(self) -> int:
        """How often the source came back after it was lost."""
        return self._reconnects

    @property
    def state(self) -> str:
        """One of "live", "reconnecting since <UTC> (why)", "ended"."""
        if self._ended is not None or self._stop.is_set():
            return "ended"
        loss = self._loss
        return f"{LOST} since {loss.since.isoformat(timespec='seconds')} ({loss.why})" if loss else "live"

    def _supervise(self, first: Reader | None) -> None:
        """Keep one reader going until told to stop, or until the first loss where none is borne."""
        backoff = self._options.backoff
        delays_s = backoff.delays_s() if backoff else iter(())
        left_behind: list[Reader] = []
        ended = "closed"
        try:
            while first is not None or not self._stop.is_set():
                began = time.monotonic()
                reader, first = first or self._start_reader(None), None
                why = self._wait_for_loss(reader)
                if self._stop.is_set():
                    break
                if backoff is None:
                    ended = why
                    break
                self._lose(why)
                if not reader.done.is_set():
                    left_behind.append(reader)
                if reader.pictures and time.monotonic() - began >= STEADY_S:
                    delays_s = backoff.delays_s()
                self._stop.wait(next(delays_s))
                left_behind = self._wait_for_room(left_behind)
        finally:
            with self._changed:
                self._ended = ended
                self._changed.notify_all()

    def _start_reader(self, capture: Any) -> Reader:
        with self._changed:  # held until `_reader` is set, so that the first picture finds it
            self._reader = reader = Reader(self._origin, capture, self._put)
            if self._stop.is_set():
                reader.stop()
            return reader

    def _wait_for_loss(self, reader: Reader) -> str:
        """Wait until `reader` ended or fell silent and was told to stop; return why."""
        patience = None if self._origin.may_be_silent else self._options.stall_after_s
        if patience is None:
            reader.done.wait()
            return reader.why
        while not reader.done.wait(max(0.0, reader.alive_s + patience - time.monotonic())):
            if self._stop.is_set() or time.monotonic() - reader.alive_s >= patience:
                break
        else:
            return reader.why
        reader.stop()
        with self._changed:
            self._reader = None  # a picture that it still delivers counts no more
        reader.done.wait(GRACE_S)
        return f"no frame for {patience:g} s"

    def _wait_for_room(self, left_behind: list[Reader]) -> list[Reader]:
        """Forget readers that returned; wait while too many have not. Returns those that are still stuck."""
        while True:
            left_behind = [reader for reader in left_behind if not reader.done.is_set()]
            if len(left_behind) < MOST_LEFT_BEHIND or self._stop.wait(1.0):
                return left_behind

    def _lose(self, why: str) -> None:
        """Note a loss, and say so unless the source was lost already."""
        known, self._loss = self._loss, Loss.now(why)
        if known is None:
            self._options.say(f"{self.name} is lost ({why}); trying again until it is back")
        else:
            self._loss = Loss(known.since, known.since_s, why)

    def _put(self, reader: Reader, image: Image8) -> None:
        with self._changed:
            if reader is not self._reader or self._stop.is_set():
                return
            name = live_frame_name(self._origin.prefix, self._index)
            if self._newest is not None:
                self._dropped += 1
            self._newest = Frame(
                image, name, self._index, time.time(), monotonic_s=reader.alive_s, camera_s=reader.camera_s
            )
            self._index += 1
            self.encoding = reader.encoding
            loss, self._loss = self._loss, None
            if loss is not None:
                self._reconnects += 1
            self._changed.notify_all()
        if loss is not None:
            self._options.say(f"{self.name} is back after {time.monotonic() - loss.since_s:.1f} s")

    def software_trigger(self) -> None:
        """Ask the camera for one frame now. Raises `UserError` where it is lost, or takes no such trigger."""
        with self._changed:
            reader = self._reader
        if reader is None:
            raise UserError(f"{self.name} must be connected for a trigger", self.state)
        reader.software_trigger()

    @property
    def adjustable(self) -> bool:
        """Whether `adjust` can be called."""
        return self._origin.adjust is not None

    def adjust(self, settings: CameraSettings) -> None:
        """Set the camera, from now on and whenever it comes back. Raises `UserError` for what it does not take.

        One that is lost just now takes it when it is back.
        """
        if self._origin.adjust is None:
            raise UserError(f"{self.name} must take settings while it runs", "a source that does not")
        self._origin.adjust(settings)
        with self._changed:
            reader = self._reader
        if reader is not None:
            reader.adjust(settings)

    def reopen(self, why: str) -> None:
        """Open the camera anew, set to what it was last asked for, before another frame of it counts."""
        with self._changed:
            reader, self._reader = self._reader, None
            self._dropped += self._newest is not None
            self._newest = None
        if reader is not None:
            if self._options.backoff is not None:
                self._lose(why)
            reader.stop(why)

    def take(self, timeout_s: float | None = None) -> Frame | None:
        """Wait for a frame not yet yielded; None once the source has ended, or after `timeout_s` without one."""
        with self._changed:
            self._changed.wait_for(lambda: self._newest is not None or self._ended is not None, timeout_s)
            frame, self._newest = self._newest, None
            return frame

    def __iter__(self) -> Iterator[Frame]:
        while (frame := self.take()) is not None:
            yield frame
        if not self._stop.is_set():
            raise UserError(f"{self.name} must keep delivering frames", f"{self._ended}", "check cable and power")

    def close(self) -> None:
        """Stop capturing and release the source; a second call does nothing."""
        self._stop.set()
        with self._changed:
            if self._reader is not None:
                self._reader.stop()
        self._thread.join(JOIN_S)
