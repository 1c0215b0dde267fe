"""An engine on a server behind the one interface: frames there, map and score back, several requests under way.

    submit ─▶ a free slot takes a copy ─▶ in the slot's thread: request, answer checked ─▶ result, or `Unanswered`

A request that fails is tried again within the frame's deadline, once the server is as it was (`link.py`).
"""

import itertools
import queue
import time
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet

import numpy as np

from runtime.common.closing import Closing
from runtime.common.errors import UserError
from runtime.engines.remote import memory
from runtime.engines.remote.address import RemoteEngine
from runtime.engines.remote.client import Answer, Fault
from runtime.engines.remote.contract import Served
from runtime.engines.remote.link import Link
from runtime.engines.remote.options import ServerOptions
from runtime.engines.remote.slot import Slot
from runtime.engines.session import Frames, Maps, Run, Scores, Unanswered
from runtime.engines.sidecar import MAP_NAME, SCORE_NAME

MOST_TRIES = 3  # of a frame: a server that is there and fails at it will fail again
GRACE_S = 0.05  # that a thread gets beyond the deadline to tell why there is no answer


class RemoteSession(Closing):
    """`expected` as a server of `engine` serves it (see `runtime.engines.session.Session`).

    One thread at a time uses a session. `closed` sessions answer nothing.
    """

    constant_batch = False

    def __init__(self, engine: RemoteEngine, options: ServerOptions, expected: Served) -> None:
        self._engine, self._options, self._served = engine, options, expected
        self.input_size = expected.sidecar.input_size
        self.frame_size = expected.sidecar.engine_frame_size
        self._fewest, self.max_batch = expected.batches
        self.slots = options.in_flight
        version = f", version {expected.version}" if expected.version else ""
        self.device = f"{engine.scheme}://{engine.host}:{engine.port}{version}"
        self._numbers = itertools.count(1)
        self._stage_ms: dict[str, float] = {}
        self._waiting, self._closed = 0, False
        memory.sweep()
        self._link = Link(engine, options, expected)
        self._free: queue.SimpleQueue[Slot] = queue.SimpleQueue()
        self._all = [Slot(engine, options) for _ in range(self.slots)]
        for slot in self._all:
            self._free.put(slot)

    def run(self, frames: Frames) -> tuple[Maps, Scores]:
        """Judge uint8 (B, H, W, 3) and return (anomaly_map (B, H, W), image_score (B,)), both float32."""
        run = self.submit(frames).result()
        self._stage_ms = run.stage_ms
        return run.maps, run.scores

    def submit(self, frames: Frames) -> "SubmittedRequest":
        """Begin to judge uint8 (B, H, W, 3); they are copied before this returns."""
        if self._closed:
            raise UserError("the session must be open", "closed", "load the engine again")
        self._check(frames)
        if self._waiting >= self.slots:
            raise RuntimeError(f"{self.slots} requests wait already")
        until = time.monotonic() + self._options.deadline_ms / 1e3
        future: Future[Run] = Future()
        self._waiting += 1
        try:
            slot = self._free.get(timeout=self._options.deadline_ms / 1e3)
        except queue.Empty:  # the server hangs, and so do the requests before
            future.set_exception(Unanswered(self._late()))
            return SubmittedRequest(self, future, until)
        started = time.perf_counter()
        slot.put(self._filled(frames))
        copied_ms = 1e3 * (time.perf_counter() - started)
        slot.work(lambda: self._into(future, slot, len(frames), copied_ms, until))
        return SubmittedRequest(self, future, until)

    def _check(self, frames: Frames) -> None:
        good = frames.ndim == 4 and 1 <= len(frames) <= self.max_batch and frames.shape[1:] == (*self.frame_size, 3)
        if frames.dtype != np.uint8 or not good:
            height, width = self.frame_size
            expected = f"frames must be uint8 (1..{self.max_batch}, {height}, {width}, 3)"
            raise UserError(expected, f"{frames.dtype} {frames.shape}", "resize them first")

    def _filled(self, frames: Frames) -> Frames:
        """Return frames filled up to the batch of a model that takes no fewer."""
        missing = self._fewest - len(frames)
        return np.concatenate([frames, np.repeat(frames[-1:], missing, axis=0)]) if missing > 0 else frames

    def _into(self, future: "Future[Run]", slot: Slot, number: int, copied_ms: float, until: float) -> None:
        """Ask, in the slot's thread, and let `future` have what came of it; the slot is free then."""
        started = time.perf_counter()
        try:
            maps, scores = self._asked(slot, until)
            stages = {"copy_in": copied_ms, "execute": 1e3 * (time.perf_counter() - started)}
            future.set_result(Run(maps[:number], scores[:number], stages))
        except BaseException as error:
            future.set_exception(error)
        finally:
            self._free.put(slot)

    def _asked(self, slot: Slot, until: float) -> tuple[Maps, Scores]:
        """Return map and score, asked for as often as time allows. Raises `Unanswered`."""
        reason = self._late()
        for _ in range(MOST_TRIES):
            turn = self._link.wait(until)
            left = until - time.monotonic()
            if left <= 0:
                break
            try:
                return self._checked(slot.ask(turn, self._served, str(next(self._numbers)), left), slot)
            except (Fault, UserError, OSError) as error:  # also a token's file that is gone by now
                reason = self._late() if time.monotonic() >= until else str(error)
                self._link.doubt(turn, reason)
        raise Unanswered(reason)

    def _checked(self, answer: Answer, slot: Slot) -> tuple[Maps, Scores]:
        """Return what is in an answer. Raises `Fault` where it is of another request or model, or of a wrong size."""
        if answer.number not in ("", slot.number):
            raise Fault("the server's answer is of another request")
        if answer.version and self._served.version and answer.version != self._served.version:
            raise Fault(f"the server's answer is of version {answer.version}, not {self._served.version}")
        maps, scores = answer.floats(MAP_NAME), answer.floats(SCORE_NAME)
        batch = slot.batch
        if maps.shape != (batch, *self.input_size) or scores.shape not in ((batch,), (batch, 1)):
            raise Fault(f"the server's answer must be for {batch} frames, not {maps.shape} and {scores.shape}")
        return maps, scores.reshape(batch)

    def _late(self) -> str:
        return f"no answer of {self._engine} within {self._options.deadline_ms:g} ms"

    def _done(self) -> None:
        self._waiting -= 1

    @property
    def stage_ms(self) -> dict[str, float]:
        """Milliseconds of the last run: "copy_in", and "execute" with the way there and back."""
        return dict(self._stage_ms)

    def close(self) -> None:
        """End the connections and give the shared memory back; a second call does nothing."""
        if not self._closed:
            self._closed = True
            self._link.close()
            for slot in self._all:
                slot.close()


class SubmittedRequest:
    """Frames that were given to a server."""

    def __init__(self, session: RemoteSession, future: "Future[Run]", until: float) -> None:
        self._session, self._future, self._until = session, future, until
        self._done = False

    def result(self) -> Run:
        """Wait for the answer until the deadline. Raises `Unanswered` where there is none by then."""
        self._end()
        try:
            return self._future.result(max(self._until - time.monotonic(), 0.0) + GRACE_S)
        except NotYet:
            raise Unanswered(self._session._late()) from None

    def discard(self) -> None:
        """Give the answer up; after `result` this does nothing."""
        self._end()

    def _end(self) -> None:
        if not self._done:
            self._done = True
            self._session._done()
