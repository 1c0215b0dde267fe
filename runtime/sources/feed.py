"""Frames of one or several sources on their way to the inspection: a thread per source, and a fair choice.

A live source's newest frame wins: the one that nobody took is replaced, and counted. A file's frames are read
ahead, a few, so that decoding goes beside the execution; its thread waits while they are not taken, and none is lost.
With triggers only the frames that are somebody's are kept, none of them is replaced, and a file waits for its trigger.
"""

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from runtime.images.frozen import FrozenCheck
from runtime.sources.asked import Firing, SoftwareTriggered, kind_of
from runtime.sources.frame import Frame, Source
from runtime.triggers.orders import Orders
from runtime.triggers.station import Order

UNSETTLED = 3  # frames on their way when a camera was set: one being decoded, one being sent, one being exposed
AHEAD = 2  # frames of a file that wait, decoded: the next one, and one for a slow read
AHEAD_BYTES = 32 << 20  # of them; of larger frames one waits
RECENT_S = 0.5  # a batch is not held up for a source that was silent for longer
JOIN_S = 1.0  # a file's thread ends after the read that it is in, unless it waits for a file to come
TRIGGERED_EQUAL = 3  # pictures in a row of a camera that is triggered; the time between two of them says nothing
END_S = 15.0  # more than a camera's driver takes to give up (see `runtime.sources.camera`)


@dataclass(frozen=True, eq=False)
class Arrival:
    """A frame and the source that it is from; `frozen` says why it shows nothing new, `order` who asked for it.

    `recipe` is what `Recipes` knows the one by that judges it.
    """

    source: Source
    frame: Frame
    frozen: str = ""
    order: Order | None = None
    recipe: str = ""


class _Channel:
    """One source, its thread and the frames that wait; `changed` is the feed's, and guards every field."""

    def __init__(
        self, source: Source, changed: threading.Condition, frozen: FrozenCheck, orders: Orders | None = None
    ) -> None:
        self.source = source
        self.frames: deque[Arrival] = deque()
        self._frozen, self._orders = frozen, orders
        self.replaced = 0
        self.held = False
        self._unsettled = 0  # frames to come that may have been exposed before the camera was set
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
        frozen = "" if frame.fault else self._frozen.reason(frame.image, frame.monotonic_s)
        order = self._whose(frame)
        with self._changed:
            if self._orders is None:
                if self._passes_over():
                    return True
                self._make_room()
            else:
                self.drop_late()
            if self.stopping:
                return False
            if self._orders is None or order is not None:
                self.frames.append(Arrival(self.source, frame, frozen, order))
            self._last_s = time.monotonic()
            self._changed.notify_all()
            return True

    def _whose(self, frame: Frame) -> Order | None:
        if self._orders is None:
            return None
        claim = self._orders.claim if self.source.live else self._orders.claim_next
        return claim(self.source.name, frame.monotonic_s, frame.index)

    def hold(self, held: bool) -> None:
        """Pass over frames until the camera is set, and then those that may be from before; with triggers none is."""
        self.held, self._unsettled = held, UNSETTLED
        if self._orders is None:
            self.replaced += len(self.frames)
            self.frames.clear()

    def _passes_over(self) -> bool:
        if not (self.held or self._unsettled) or self.stopping:
            return False
        self._unsettled -= not self.held
        self.replaced += 1
        return True

    def _make_room(self) -> None:
        if self.source.live:
            self.replaced += len(self.frames)
            self.frames.clear()
        else:
            self._changed.wait_for(lambda: self.stopping or self._has_room())

    def _has_room(self) -> bool:
        waiting = sum(arrival.frame.image.nbytes for arrival in self.frames)
        return not self.frames or (len(self.frames) < AHEAD and waiting < AHEAD_BYTES)

    def drop_late(self) -> None:
        """Let go of frames whose part has gone: to judge them would make the next ones late, too."""
        late = [waiting for waiting in self.frames if waiting.order is not None and waiting.order.answered]
        for arrival in late:
            self.frames.remove(arrival)
            if self._orders is not None and arrival.order is not None:
                self._orders.lose(arrival.order)

    @property
    def done(self) -> bool:
        return self.ended and not self.frames

    @property
    def expected(self) -> bool:
        """Whether a frame can be expected within moments."""
        if self._orders is not None:
            return not (self.frames or self.ended) and self._orders.waits(self.source.name)
        return not (self.frames or self.ended) and time.monotonic() - self._last_s < RECENT_S

    def close(self) -> None:
        """End the thread and close the source; a file is not closed under a read, a camera must be."""
        if not self.source.live and self.thread.ident is not None:
            self.thread.join(JOIN_S)
        self.source.close()
        if self.thread.ident is not None:
            self.thread.join(END_S)


class Feed:
    """Takes frames from every one of `sources` from now on; owns them, and closes them.

    With `orders`, which must be open, only frames that these ask for. Pictures of a live source that have not changed
    for `frozen_after_s` seconds are said to be frozen (0: never). `recipe` says which recipe is in force: it judges the
    frame that is taken then, one that a trigger asked for is judged by the trigger's.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        orders: Orders | None = None,
        frozen_after_s: float = 0.0,
        recipe: Callable[[], str] = str,
    ) -> None:
        self._recipe = recipe
        self._changed = threading.Condition()
        least = 2 if orders is None else TRIGGERED_EQUAL
        self._channels = [
            _Channel(source, self._changed, FrozenCheck(frozen_after_s if source.live else 0.0, least), orders)
            for source in sources
        ]
        self._next = 0  # the channel whose turn it is
        for channel in self._channels:
            channel.thread.start()
            source = channel.source
            if orders is not None and not orders.options.each_frame and kind_of(source) == "fired":
                assert isinstance(source, SoftwareTriggered)
                Firing(source.name, source.software_trigger, orders)

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
        for channel in self._channels:
            channel.drop_late()
        arrivals: list[Arrival] = []
        silent = 0  # channels in a row that had nothing
        while len(arrivals) < most and silent < len(self._channels):
            channel = self._channels[self._next]
            self._next = (self._next + 1) % len(self._channels)
            silent += 1
            if channel.frames:
                arrivals.append(self._under_recipe(channel.frames.popleft()))
                silent = 0
        return arrivals

    def _under_recipe(self, arrival: Arrival) -> Arrival:
        return replace(arrival, recipe=self._recipe() if arrival.order is None else arrival.order.recipe)

    @contextlib.contextmanager
    def held(self, sources: Collection[Source]) -> Iterator[None]:
        """Take no frame of these cameras, which are being set, within; nor those that were on their way then."""
        channels = [channel for channel in self._channels if channel.source in sources]
        with self._changed:
            for channel in channels:
                channel.hold(True)
        try:
            yield
        finally:
            with self._changed:
                for channel in channels:
                    channel.hold(False)

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
