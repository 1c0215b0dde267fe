"""What one frame came to, and where such judgements can go."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from runtime.common.closing import Closing
from runtime.images.overlay import draw, thumbnail
from runtime.images.parts import Part
from runtime.images.pixels import Image8, held_bytes
from runtime.images.reduced_map import empty_map, is_large_map, reduced_map
from runtime.images.regions import Region
from runtime.images.view import View
from runtime.result import Result, Verdict
from runtime.sinks.shared_boxes import SharedBoxes
from runtime.sinks.shared_overlay import SharedOverlay
from runtime.sources.frame import Frame
from runtime.triggers.trigger import Trigger


@dataclass(frozen=True, eq=False)
class Judgement:
    """A frame with the engine's result.

    `source` is the name of the source that the frame came from, one of several where several cameras are judged in
    one process. `frame.image` is what was judged: after region of interest, mask, rotation and flip; `view` knows
    what these were, and maps a box back to the camera's pixels (None: the camera's frame itself was judged).
    `trigger` is what asked for it, None for a frame that nothing asked for, and `due_s` until when, of the monotonic
    clock. A part gets one answer: where the deadline has passed it is `late` and without a verdict, and what the engine
    says later is only recorded (`answers` is False).
    `decision` is the line's, of several frames; None where each frame is decided by itself.
    `judged_s` is of the monotonic clock, for intervals: the time of day may be set back. `run` is the id of the run
    (`runtime.records.run`) that knows the version; `recipe` is the recipe's name, empty without one, and the two hashes
    are those of engine and sidecar that judged. `maximum` is its largest score; None: what a sink was made for.
    `parts` are the results of several detectors or regions, `result` is the joint one (`runtime.images.parts`).
    `tiles` says into how many the frame was cut; 0: it was judged as one picture.
    Judgements wait in queues and are shared by sinks: nobody writes into their arrays.
    """

    source: str
    frame: Frame
    result: Result
    view: View | None = None
    trigger: Trigger | None = None
    due_s: float = math.inf
    late: bool = False
    answers: bool = True
    decision: Verdict | None = None
    judged_s: float = field(default_factory=time.monotonic)
    run: str = ""
    recipe: str = ""
    engine_sha256: str = ""
    sidecar_sha256: str = ""
    maximum: float | None = None
    parts: tuple[Part, ...] = ()
    tiles: int = 0
    _overlay: SharedOverlay = field(default_factory=SharedOverlay, init=False, repr=False)
    _boxes: SharedBoxes = field(default_factory=SharedBoxes, repr=False)  # shared with copies: the map is the same

    @property
    def anomalous(self) -> bool:
        """Whether the verdict is "anomalous"."""
        return self.result.verdict == "anomalous"

    @property
    def alarming(self) -> bool:
        """Whether somebody has to look: the verdict, or the line's decision, is "anomalous", or there is none.

        A decision that was not possible yet is no alarm while the frames themselves have verdicts.
        """
        if self.decision is None or (self.decision == "none" and self.result.verdict == "none"):
            return self.result.verdict != "good"
        return self.decision == "anomalous"

    @property
    def answer_ms(self) -> float | None:
        """Milliseconds from the trigger to this judgement; None without a trigger."""
        return None if self.trigger is None else 1e3 * (self.judged_s - self.trigger.asked_s)

    def told(self) -> "Judgement":
        """Return what may be told to the line now: after the deadline no verdict, however long it waited in a queue."""
        now_s = time.monotonic()
        return self if self.late or now_s < self.due_s else self.too_late(now_s)

    def too_late(self, now_s: float) -> "Judgement":
        """Return the same as what came at the monotonic `now_s`, after the deadline: never a verdict."""
        if self.trigger is None:
            return self
        came = self.result.verdict if self.result.verdict != "none" else f"no verdict ({self.result.reason})"
        reason = f"late: {came} came {1e3 * (now_s - self.trigger.asked_s):.0f} ms after the trigger"
        parts = tuple(replace(part, result=replace(part.result, verdict="none", reason=reason)) for part in self.parts)
        return replace(self, late=True, result=replace(self.result, verdict="none", reason=reason), parts=parts)

    @property
    def age_ms(self) -> float:
        """How old the frame was when it was judged, in milliseconds; no clock that is set moves it."""
        return 1e3 * (self.judged_s - self.frame.monotonic_s)

    @property
    def asked_s(self) -> float | None:
        """When the trigger came, in seconds since 1970 by the clock that timed the frame; None without a trigger."""
        frame = self.frame
        return None if self.trigger is None else frame.captured_s + (self.trigger.asked_s - frame.monotonic_s)

    @property
    def nbytes(self) -> int:
        """Bytes that its arrays keep in memory."""
        maps = [self.result.anomaly_map, *(part.result.anomaly_map for part in self.parts)]
        return held_bytes(self.frame.image) + sum(map(held_bytes, maps))

    @property
    def boxes(self) -> tuple[Region, ...]:
        """Where the map is above its threshold, in pixels of the judged frame: found once for all sinks."""
        return self._boxes.get(self.result, self.frame.image.shape[:2], self.parts)

    def overlay(self, maximum: float) -> Image8:
        """Return the frame with its map, outlines and verdict, uint8 (H, W, 3), read-only: drawn once for all sinks."""
        return self._overlay.get(self.frame.image, self.result, self.of_scale(maximum), self.parts)

    def small_overlay(self, maximum: float, width: int) -> Image8:
        """Return the overlay at most `width` pixels wide, drawn small, so that words and outlines can be read."""
        image = self.frame.image
        if image.shape[1] <= width:
            return self.overlay(maximum)
        if self.parts:
            return thumbnail(self.overlay(maximum), width)
        small = replace(self.result, anomaly_map=reduced_map(self.result.anomaly_map, width))
        return draw(thumbnail(image, width), small, self.of_scale(maximum))

    def of_scale(self, maximum: float) -> float:
        """Return the largest score that its engine can give, `maximum` where it does not say."""
        return maximum if self.maximum is None else self.maximum

    @property
    def has_large_map(self) -> bool:
        """Whether keeping its maps would count."""
        return is_large_map(self.result.anomaly_map) or any(is_large_map(one.result.anomaly_map) for one in self.parts)

    def without_picture(self) -> "Judgement":
        """Return the same with a black picture of the same size that takes one byte; its boxes stay.

        So does a map that is not large: of a large one the boxes are found now.
        """
        black = np.broadcast_to(np.zeros((), np.uint8), self.frame.image.shape)
        return replace(self.without_map() if self.has_large_map else self, frame=replace(self.frame, image=black))

    def without_map(self) -> "Judgement":
        """Return the same with maps that take one value; its boxes are found now, where they were not."""
        return self._with_maps(empty_map)

    def with_map_of(self, side: int) -> "Judgement":
        """Return the same with maps of `side` positions a side at most; its boxes are found now, where they were not.

        Of what a position stands for it has the highest value: no defect is lost.
        """
        return self._with_maps(lambda anomaly_map: reduced_map(anomaly_map, side))

    def _with_maps(self, change: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> "Judgement":
        parts = tuple(part.with_map(change(part.result.anomaly_map)) for part in self.parts)
        result = replace(self.result, anomaly_map=change(self.result.anomaly_map))
        return replace(self, result=result, parts=parts, _boxes=SharedBoxes(self.boxes))


class Sink(Closing, Protocol):
    """Takes judgements one by one, in order.

    `write` may raise `OSError` or `UserError` for one that it could not deliver; the next is tried all the same. Both
    may raise `runtime.sinks.queueing.NotKept` for some that seemed to be delivered and are not.
    A sink whose `queueing` has a `batch` is a `BatchSink`, and gets them several at a time.
    `close` finishes what was begun; a second call does nothing. One thread calls both (`runtime.sinks.delivery`). Two
    things a sink may have beside: an attribute `queueing` says how its queue behaves (`runtime.sinks.queueing`), and a
    method `interrupt`, called from another thread, ends its waiting.
    """

    name: str

    def write(self, judgement: Judgement) -> None:
        """Deliver one judgement; may take its time (see `runtime.sinks.delivery`)."""
        ...


class BatchSink(Sink, Protocol):
    """A sink that takes many judgements at once, whole or not at all."""

    def write_batch(self, judgements: Sequence[Judgement]) -> None:
        """Deliver all of them in order. Raises as `write` where none of them could be."""
        ...
