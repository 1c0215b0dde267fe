"""Frames of one or several sources on their way to the inspection: a thread per source, and a fair choice.

A live source's newest frame wins: the one that nobody took is replaced, and counted. A file's frames are read
ahead, a few, so that decoding goes beside the execution; its thread waits while they are not taken, and none is lost.
"""

import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from runtime.sources.frame import Frame, Source

AHEAD = 2  # frames of a file that wait, decoded: the next one, and one for a slow read
RECENT_S = 0.5  # a batch is not held up for a source that was silent for longer
JOIN_S = 1.0  # a file's thread ends after the read that it is in, unless it waits for a file to come
END_S = 15.0  # more than a camera's driver takes to give up (see `runtime.sources.camera`)


@dataclass(frozen=True, eq=False)
class Arrival:
    """A frame and the source that it is from."""

    source: Source
    frame: Frame


class _Channel:
    """One source, its thread and the frames that wait; `changed` is the feed's, and guards every field."""

    def __init__(self, source: Source, changed: threading.Condition) -> None:
        self.source = source
        self.frames: deque[Frame] = deque()
        self.replaced = 0
        self.ended = self.stopping = False
        self.error: Exception | None = None
        self._last_s = time.monotonic()  # a source that was just opened may deliver at once
        self._changed = changed
        self.thread = threading.Thread(target=self._pull, name=f"frames of {source.name}", daemon=True)

    def _pull(self) -> None:
        try:
            for frame in self.source:
                if not self._put(frame):
                    break
        except Exception as error:  # whatever it is: the inspection's thread raises it
            self.error = error
        with self._changed:
            self.ended = True
            self._changed.notify_all()

    def _put(self, frame: Frame) -> bool:
        with self._changed:
            if self.source.live:
                self.replaced += len(self.frames)
                self.frames.clear()
            else:
                self._changed.wait_for(lambda: self.stopping or len(self.frames) < AHEAD)
            if self.stopping:
                return False
            self.frames.append(frame)
            self._last_s = time.monotonic()
            self._changed.notify_all()
            return True

    @property
    def done(self) -> bool:
        return self.ended and not self.frames

    @property
    def expected(self) -> bool:
        """Whether a frame can be expected within moments."""
        return not (self.frames or self.ended) and time.monotonic() - self._last_s < RECENT_S

    def close(self) -> None:
        """End the thread and close the source; a file is not closed under a read, a camera must be."""
        if not self.source.live and self.thread.ident is not None:
            self.thread.join(JOIN_S)
        self.source.close()
        if self.thread.ident is not None:
            self.thread.join(END_S)


class Feed:
    """Takes frames from every one of `sources` from now on; owns them, and closes them."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._changed = threading.Condition()
        self._channels = [_Channel(source, self._changed) for source in sources]
        self._next = 0  # the channel whose turn it is
        for channel in self._channels:
            channel.thread.start()

    def take(self, most: int, timeout_s: float, gather_s: float = 0.0) -> list[Arrival]:
        """Return up to `most` frames, the sources in turn; none where none came within `timeout_s`.

        With the first of them there, others that can be expected are waited for up to `gather_s`.
        """
        with self._changed:
            self._changed.wait_for(lambda: any(channel.frames for channel in self._channels) or self._ended, timeout_s)
            if gather_s and any(channel.frames for channel in self._channels):
                self._changed.wait_for(lambda: self._gathered(most), gather_s)
            arrivals = self._pick(most)
            if arrivals:
                self._changed.notify_all()  # there is room again
            return arrivals

    def _gathered(self, most: int) -> bool:
        ready = sum(bool(channel.frames) for channel in self._channels)  # a second frame of one is no other source
        return ready >= most or not any(channel.expected for channel in self._channels)

    def _pick(self, most: int) -> list[Arrival]:
        arrivals: list[Arrival] = []
        silent = 0  # channels in a row that had nothing
        while len(arrivals) < most and silent < len(self._channels):
            channel = self._channels[self._next]
            self._next = (self._next + 1) % len(self._channels)
            silent += 1
            if channel.frames:
                arrivals.append(Arrival(channel.source, channel.frames.popleft()))
                silent = 0
        return arrivals

    @property
    def _ended(self) -> bool:
        return all(channel.done for channel in self._channels)

    @property
    def ended(self) -> bool:
        """Whether every source has ended and every frame was taken."""
        with self._changed:
            return self._ended

    def failures(self) -> list[tuple[Source, Exception]]:
        """Return the sources that ended with an error and whose frames were all taken, with the error."""
        with self._changed:
            return [(channel.source, channel.error) for channel in self._channels if channel.done and channel.error]

    def dropped(self, source: Source) -> int:
        """Return how many frames of `source` were captured but never taken."""
        with self._changed:
            replaced = sum(channel.replaced for channel in self._channels if channel.source is source)
        return source.dropped + replaced

    def close(self) -> None:
        """Stop the threads and close the sources; a second call does nothing."""
        with self._changed:
            for channel in self._channels:
                channel.stopping = True
            self._changed.notify_all()
        for channel in self._channels:
            channel.close()
