"""Between the inspection and its sinks: a bounded queue and a thread per sink, and a count of everything.

    offer ──▶ queue (bounded in number and bytes) ──▶ thread ──▶ sink.write

Whatever is offered ends in exactly one count: delivered, failed (the sink said so) or lost (it never got to the
sink). A sink that is slow, dead or hangs for ever costs the inspection nothing but the time to append to a queue.
"""

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import cast

from runtime.common.closing import Closing
from runtime.common.notices import say as to_log
from runtime.sinks.judgement import BatchSink, Judgement, Sink
from runtime.sinks.queueing import Counts, NotKept, Queueing, error_line

CLOSE_TIMEOUT_S = 10.0
JOIN_STEP_S = 0.05
INTERRUPT_GRACE_S = 0.5  # what an interrupted sink gets to end in good order
SAY_EVERY_S = 600.0  # trouble that lasts is said this often at most, and counted always


class Delivery:
    """Offers judgements to `sink` from a thread of its own; owns the sink and closes it.

    `patience_s` is how long `offer` waits for room in a full queue. It is 0, no wait ever, for live sources; frames
    of files can wait, and then nothing is lost to a sink that is merely slow. One that used it up is dead until it
    takes something, and is not waited for again. `queueing` defaults to the sink's own, `say` gets one line when
    trouble begins and one when it ends, not one a frame.
    """

    def __init__(
        self,
        sink: Sink,
        queueing: Queueing | None = None,
        *,
        patience_s: float = 0.0,
        say: Callable[[str], None] = to_log,
    ) -> None:
        self.sink = sink
        self.queueing: Queueing = queueing if queueing is not None else getattr(sink, "queueing", Queueing())
        self._patience_s = patience_s
        self._say = say
        self._said: dict[str, float] = {}
        self._queue: deque[Judgement] = deque()
        self._bytes = 0
        self._changed = threading.Condition()
        self._writing = self._in_hand_bytes = 0  # judgements that the sink has in hand
        self._closing = self._abandoned = self._dead = self._failing = False
        self._delivered = self._lost = self._failed = 0
        self._last_error = ""
        # a daemon: a sink that hangs for ever must not keep the process alive
        self._thread = threading.Thread(target=self._run, name=f"deliver to {sink.name}", daemon=True)
        self._thread.start()

    def offer(self, judgement: Judgement) -> None:
        """Queue one judgement, or count what the full queue gives up for it as lost. Never raises, never waits long."""
        if self.queueing.anomalies_only and not judgement.alarming:
            return
        if self.queueing.answers_only and not judgement.answers:
            return
        if not self.queueing.pictures:
            judgement = judgement.without_picture()
        with self._changed:
            self._wait_for_room(judgement)
            lost = self._enqueue(judgement)
            self._lost += lost
        if lost:
            self._say_rarely("lost", "is too slow or dead, judgements are lost to it (counted, the inspection goes on)")

    def _wait_for_room(self, judgement: Judgement) -> None:
        """Wait as long as the patience lasts; a sink that used it up is dead until it takes something."""
        if self._patience_s and not (self._dead or self._has_room(judgement)):
            self._dead = not self._changed.wait_for(
                lambda: self._closing or self._has_room(judgement), self._patience_s
            )

    def _has_room(self, judgement: Judgement) -> bool:
        """Whether there is no need to wait: large frames of files wait for those that the sink has in hand, too."""
        held = self._bytes + self._in_hand_bytes
        return self._fits(judgement) and (not held or held + judgement.nbytes <= self.queueing.max_bytes)

    def _enqueue(self, judgement: Judgement) -> int:
        """Append `judgement`, giving up for it what `queueing.keep` says; return how many judgements that lost."""
        if self._closing:
            return 1
        lost = 0
        while self.queueing.keep == "newest" and not self._fits(judgement):
            self._bytes -= self._queue.popleft().nbytes
            lost += 1
        if not self._fits(judgement):
            return lost + 1
        self._queue.append(judgement)
        self._bytes += judgement.nbytes
        if len(self._queue) == 1 or self._enough():  # what else comes while a batch is gathered wakes nobody
            self._changed.notify_all()
        return lost

    def counts(self) -> Counts:
        """Return what became of the judgements offered so far."""
        with self._changed:
            queued = len(self._queue) + self._writing
            return Counts(self.sink.name, self._delivered, self._lost, self._failed, queued, self._last_error)

    def begin_close(self) -> None:
        """Take no more and let the thread finish; for closing several at the same time."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()

    def running(self, wait_s: float = 0.0) -> bool:
        """Return whether the thread still works, after up to `wait_s`."""
        self._thread.join(wait_s)
        return self._thread.is_alive()

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Deliver what is queued and close the sink, within `timeout_s`; the rest counts as lost. May be repeated."""
        self.begin_close()
        self._thread.join(timeout_s)
        if not self._thread.is_alive():
            return
        with self._changed:
            self._lost += len(self._queue)
            self._queue.clear()
            self._bytes = 0
        interrupt = getattr(self.sink, "interrupt", None)
        if interrupt is not None:
            interrupt()
            self._thread.join(INTERRUPT_GRACE_S)
        with self._changed:
            if self._thread.is_alive() and not self._abandoned:
                self._abandoned = True
                self._lost += self._writing
                self._writing = 0
                self._last_error = self._last_error or f"did not end within {timeout_s:g} s"

    def _fits(self, judgement: Judgement) -> bool:
        full = len(self._queue) >= self.queueing.capacity or self._bytes + judgement.nbytes > self.queueing.max_bytes
        return not self._queue or not full

    def _run(self) -> None:
        while batch := self._next():
            try:
                self._write(batch)
            except Exception as error:  # also a sink's defect: it must not end the deliveries
                self._count(error)
            else:
                self._count(None)
            del batch  # or it would stay in memory while the queue is empty
        try:
            self.sink.close()
        except Exception as error:
            with self._changed:
                self._last_error = error_line(error)
                self._take_back(error)
            self._say_rarely("close", f"could not be closed: {error_line(error)}")

    def _write(self, batch: list[Judgement]) -> None:
        if self.queueing.batch > 1:
            cast(BatchSink, self.sink).write_batch(batch)
        else:
            self.sink.write(batch[0])

    def _enough(self) -> bool:
        """Return whether a batch need not wait for more; it may be one that the queue has no room for."""
        most = min(self.queueing.batch, self.queueing.capacity)
        return len(self._queue) >= most or 2 * self._bytes > self.queueing.max_bytes

    def _next(self) -> list[Judgement]:
        """Return what the sink gets next; nothing at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closing)
            if self._queue and self.queueing.gather_s:
                self._changed.wait_for(lambda: self._closing or self._enough(), self.queueing.gather_s)
            batch = [self._queue.popleft() for _ in range(min(self.queueing.batch, len(self._queue)))]
            self._in_hand_bytes = sum(judgement.nbytes for judgement in batch)
            self._bytes -= self._in_hand_bytes
            self._writing = len(batch)
            if batch:
                self._dead = False
                self._changed.notify_all()
            return batch

    def _count(self, error: Exception | None) -> None:
        with self._changed:
            if self._abandoned:  # counted as lost when it was given up
                return
            count, self._writing, self._in_hand_bytes = self._writing, 0, 0
            self._changed.notify_all()
            before, self._failing = self._failing, error is not None
            if error is None:
                self._delivered += count
            else:
                self._last_error = error_line(error)
                if self._take_back(error):
                    self._delivered += count
                else:
                    self._failed += count
        if error is not None:
            self._say_rarely("failed", f"cannot deliver: {self._last_error} (counted, the inspection goes on)")
        elif before and self._said.pop("told failed", 0):
            self._tell(f"delivers again, {self._failed + self._lost} not delivered so far")

    def _take_back(self, error: Exception) -> int:
        """Count as failed what was delivered before and is not there; return how many that is."""
        count = error.count if isinstance(error, NotKept) else 0
        self._delivered -= count
        self._failed += count
        return count

    def _say_rarely(self, kind: str, text: str) -> None:
        now = time.monotonic()
        if now - self._said.get(kind, -SAY_EVERY_S) >= SAY_EVERY_S:
            self._said[kind] = self._said[f"told {kind}"] = now
            self._tell(text)

    def _tell(self, text: str) -> None:
        with contextlib.suppress(Exception):  # a log that takes nothing must end neither inspection nor deliveries
            self._say(f"{self.sink.name}: {text}")


class Deliveries(Closing):
    """All sinks of an inspection: each offer goes to every one. A context manager that closes them together."""

    def __init__(
        self,
        sinks: Sequence[Sink],
        *,
        patience_s: float = 0.0,
        close_timeout_s: float = CLOSE_TIMEOUT_S,
        say: Callable[[str], None] = to_log,
    ) -> None:
        self._close_timeout_s = close_timeout_s
        self._patience_s = patience_s
        self._deliveries = tuple(Delivery(sink, patience_s=patience_s, say=say) for sink in sinks)

    def offer(self, judgement: Judgement) -> None:
        """Offer one judgement to every sink."""
        for delivery in self._deliveries:
            delivery.offer(judgement)

    def counts(self) -> tuple[Counts, ...]:
        """Return the counts of every sink, in their order."""
        return tuple(delivery.counts() for delivery in self._deliveries)

    def hurry(self) -> None:
        """Have `close` take no longer than its timeout, also for files; only sets a number, for a signal's handler."""
        self._patience_s = 0.0

    def close(self) -> None:
        """Close all at the same time, so that the slowest decides how long it takes; a second call does nothing.

        With patience, for files, the time begins anew while anything is delivered: slow sinks get what waits for them.
        """
        for delivery in self._deliveries:
            delivery.begin_close()
        deadline, delivered = time.monotonic() + self._close_timeout_s, 0
        while (running := [one for one in self._deliveries if one.running()]) and time.monotonic() < deadline:
            running[0].running(JOIN_STEP_S)
            before, delivered = delivered, sum(counts.delivered for counts in self.counts())
            if self._patience_s and delivered != before:
                deadline = time.monotonic() + self._close_timeout_s
        for delivery in self._deliveries:
            delivery.close(0.0)
