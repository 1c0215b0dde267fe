"""What the inspection does with frames that go into one execution: view ▸ detector ▸ refine, and what each shows.

All of it runs in the thread that calls `Inspection.run`.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from runtime.common.errors import UserError
from runtime.common.summary import Summary
from runtime.detector import Submitted
from runtime.images.parts import Part, joint
from runtime.images.view import View
from runtime.recipes.recipe import Inspect, Recipe
from runtime.recipes.several import judge
from runtime.result import Result
from runtime.sources.encoding_notes import EncodingNotes
from runtime.sources.feed import Arrival
from runtime.sources.frame import Frame, Source
from runtime.triggers.station import Order


@dataclass(frozen=True, eq=False)
class Taken:
    """A frame as it is judged."""

    source: Source
    frame: Frame
    unjudged: str  # why it is not given to the engine; empty where it is
    frozen: str  # why it says nothing new
    order: Order | None  # whose it is


@dataclass(frozen=True, eq=False)
class UnderWay:
    """Frames that were submitted together, by which recipe, and the milliseconds of what came before.

    Of a recipe with several detectors nothing waits for its result: `parts` has them, for each frame.
    """

    recipe: Recipe
    taken: list[Taken]
    submitted: Submitted | None
    latency_ms: dict[str, float]
    parts: tuple[tuple[Part, ...], ...] = ()

    def results(self) -> list[Result]:
        """Wait for the results of the frames, in their order."""
        return [joint(parts) for parts in self.parts] if self.submitted is None else self.submitted.results()

    def discard(self) -> None:
        """Give the results up."""
        if self.submitted is not None:
            self.submitted.discard()


@dataclass(frozen=True, eq=False)
class Judged:
    """A frame and its result; `parts` are those of a recipe with several detectors, which has no one `view`."""

    item: Taken
    result: Result
    view: View | None
    parts: tuple[Part, ...]


class Judging:
    """Submits frames of `sources` to a recipe, and has their results; `summary` counts those of the run so far.

    With `batch_cameras` the frames of several sources go into one execution.
    """

    def __init__(self, sources: Sequence[Source], batch_cameras: bool, summary: Summary) -> None:
        self._sources = sources
        self._places = {id(source): place for place, source in enumerate(sources)}
        self._batch_cameras = batch_cameras
        self._summary = summary
        self._encodings: dict[int, EncodingNotes] = {}  # by the sidecar that they compare with

    def submit(self, recipe: Recipe, arrivals: Sequence[Arrival], capture_ms: float) -> UnderWay:
        """Give frames to the engine; a recipe with several detectors judges them at once.

        Raises `UserError` for the very first frame of a single source whose pictures are all alike, where it does not
        fit: then it is the configuration that is wrong.
        """
        if recipe.several:
            return self._judge_several(recipe, arrivals, capture_ms)
        started = time.perf_counter()
        detector = recipe.first.detector
        with recipe.named():
            taken = [self._viewed(recipe.first, arrival) for arrival in arrivals]
        latency_ms = {"capture": capture_ms}
        if recipe.first.views:
            latency_ms["view"] = 1e3 * (time.perf_counter() - started)
        session = detector.session
        constant = self._batch_cameras and session.constant_batch
        batch = min(len(self._sources), session.max_batch) if constant else 0
        empty = (*session.frame_size, 3)
        images = [np.zeros(empty, np.uint8) if item.unjudged else item.frame.image for item in taken]
        return UnderWay(recipe, taken, detector.submit(images, batch), latency_ms)

    def finish(self, batch: UnderWay) -> Iterator[Judged]:
        """Wait for the results of `batch` and yield them, in the frames' order."""
        recipe, one = batch.recipe, batch.recipe.first
        for place, (item, result) in enumerate(zip(batch.taken, batch.results(), strict=True)):
            judged = result if recipe.several else self._refined(one, item, result)
            for each in recipe.inspects:
                self._notes_on(each).look_at(item.source)
            judged = replace(judged, latency_ms={**batch.latency_ms, **judged.latency_ms})
            view = None if recipe.several else self._view(one, item.source)
            yield Judged(item, judged, view, batch.parts[place] if recipe.several else ())

    def _judge_several(self, recipe: Recipe, arrivals: Sequence[Arrival], capture_ms: float) -> UnderWay:
        taken = [Taken(one.source, one.frame, one.frame.fault, one.frozen, one.order) for one in arrivals]
        with recipe.named():
            parts = tuple(
                judge(recipe, self._places[id(one.source)], one.frame, one.frozen, self._is_first(one.source))
                for one in arrivals
            )
        return UnderWay(recipe, taken, None, {"capture": capture_ms}, parts)

    def _is_first(self, source: Source) -> bool:
        """Whether a frame that does not fit is the very first of a single source whose pictures are all alike."""
        return len(self._sources) == 1 and source.uniform and not self._summary.frames

    def _view(self, one: Inspect, source: Source) -> View | None:
        return one.views[self._places[id(source)]] if one.views else None

    def _viewed(self, one: Inspect, arrival: Arrival) -> Taken:
        """Return what is judged of a frame, or why it cannot be. One bad frame of many is not the end of the others.

        Raises `UserError` as `submit` does.
        """
        source, frame, unjudged = arrival.source, arrival.frame, arrival.frame.fault
        if unjudged:
            return Taken(source, frame, unjudged, "", arrival.order)
        view = self._view(one, source)
        try:
            if view is not None:
                frame = replace(frame, image=np.ascontiguousarray(view(frame.image)))
            one.detector.check(frame.image)
        except UserError as error:
            if self._is_first(source):
                raise
            unjudged = str(error)
        return Taken(source, frame, unjudged, arrival.frozen, arrival.order)

    def _refined(self, one: Inspect, item: Taken, result: Result) -> Result:
        """Return `result` held to what is inspected of the source's frames, without a verdict where it has none."""
        if item.unjudged:
            return result.unjudged(item.unjudged)
        view = self._view(one, item.source)
        judged = result if view is None else view.inspected(result, one.detector.sidecar.scoring)
        return judged.without_verdict(item.frozen) if item.frozen else judged

    def _notes_on(self, one: Inspect) -> EncodingNotes:
        sidecar = one.detector.sidecar
        if id(sidecar) not in self._encodings:
            self._encodings[id(sidecar)] = EncodingNotes(sidecar.image_facts, sidecar.versions)
        return self._encodings[id(sidecar)]
