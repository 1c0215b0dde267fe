"""The inspection: frames of one or several sources are judged, and every judgement is offered to the sinks.

    sources ─▶ feed (a thread each) ─▶ view ▸ detector ▸ refine ─▶ judgement ─▶ receiver (see `runtime.sinks.delivery`)

Everything here runs in the thread that calls `run`; what waits for devices, disks or networks has threads of its own.
One thing comes from another thread: the answer to a trigger whose deadline has passed (`runtime.triggers.orders`).
"""

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from runtime.common.closing import Closing
from runtime.common.errors import UserError
from runtime.common.notices import say
from runtime.detector import Detector
from runtime.images.view import View
from runtime.judging import Judging, UnderWay
from runtime.outgoing import Outgoing, Receiver
from runtime.recipes.book import Recipes
from runtime.recipes.recipe import Recipe
from runtime.sources.asked import Adjustable, adjustable, kind_of
from runtime.sources.feed import Arrival, Feed
from runtime.sources.frame import LOST, Source
from runtime.triggers.options import DecideOptions
from runtime.triggers.orders import Orders
from runtime.triggers.station import Order

TICK_S = 0.1  # how soon a request to stop is seen while no frame comes


@dataclass(frozen=True)
class InspectionOptions:
    """How to inspect.

    `limit` ends the run after so many frames. With `batch_cameras` the frames of several sources that are there go
    into one execution, and those that can be expected are waited for up to `gather_ms` milliseconds. A live source
    whose picture has not changed for `frozen_after_s` seconds gets no verdict (0: never). `decide` says how the line
    decides by several frames. `run` is the id that every judgement bears (`runtime.records.run`).
    """

    limit: int | None = None
    batch_cameras: bool = False
    gather_ms: float = 3.0
    frozen_after_s: float = 10.0
    decide: DecideOptions | None = None
    run: str = ""


@dataclass(frozen=True)
class SourceState:
    """A source as it is now (see `runtime.sources.frame.Source`); `dropped` counts what the feed let go, too."""

    name: str
    live: bool
    state: str
    dropped: int
    reconnects: int
    incomplete: int = 0
    missing: int = 0

    @property
    def lost_on_the_way(self) -> str:
        """A sentence on frames that the camera took and that did not come whole; empty where there are none."""
        if not (self.incomplete or self.missing):
            return ""
        return (
            f"{self.name}: {self.incomplete} frames incomplete, {self.missing} missing, lost on the way from the camera"
        )


class Inspection(Closing):
    """Judges the frames of `sources` with `detector` until they end, `stop` is called or the limit is reached.

    `receivers` are offered every judgement. `views` has one for each source, in their order, or none at all. Owns the
    sources, not the detector. With `recipes`, the one in force judges in the place of `detector` and `views`: the
    next frame that is taken, or, with `orders`, the parts whose triggers come from then on. With `orders`, which it
    opens and closes, only frames that triggers ask for are judged, and each trigger gets its answer. `latency_ms` of
    each result gains the stages "capture" (what the loop waited for the frame) and, with views, "view". Raises
    `UserError` for two sources of one name, which no sink could tell apart.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        detector: Detector,
        receivers: Sequence[Receiver] = (),
        options: InspectionOptions | None = None,
        views: Sequence[View] = (),
        orders: Orders | None = None,
        recipes: Recipes | None = None,
    ) -> None:
        self.sources = tuple(sources)
        self._check_names()
        self.recipes = recipes or Recipes([Recipe.plain(detector, views=views)])
        for one in (one for recipe in self.recipes.all for one in recipe.inspects if one.views):
            if len(one.views) != len(self.sources):
                raise ValueError(f"{len(one.views)} views for {len(self.sources)} sources")
        self._options = options or InspectionOptions()
        self._outgoing = Outgoing(receivers, self.recipes, orders, self._options.decide, self._options.run)
        self.summary = self._outgoing.summary
        self._judging = Judging(self.sources, self._options.batch_cameras, self.summary)
        self._orders = orders
        self._taken = 0
        self._waited_ms = 0.0
        self._stopping = False
        self._told: set[int] = set()  # sources whose end was told, by their place
        if orders is not None:
            kinds = {source.name: kind_of(source) for source in self.sources}
            orders.open(kinds, self._answer_without_frame, self.recipes.key_in_force)
        self._feed = Feed(self.sources, orders, self._options.frozen_after_s, self.recipes.key_in_force)
        self.recipes.around = self._set_cameras

    def _check_names(self) -> None:
        names = [source.name for source in self.sources]
        if twice := next((name for i, name in enumerate(names) if name in names[:i]), None):
            raise UserError("each source must have a name of its own", f"{twice!r} twice", "name them differently")

    def add(self, receiver: Receiver) -> None:
        """Offer every judgement from now on to `receiver` too, after the others."""
        self._outgoing.receivers = (*self._outgoing.receivers, receiver)

    def stop(self) -> None:
        """Ask `run` to return after what is under way; only sets a flag, so that a signal handler may call it."""
        self._stopping = True

    @contextlib.contextmanager
    def _set_cameras(self, old: Recipe, new: Recipe) -> Iterator[None]:
        """Set cameras to what `new` needs while no frame is taken, nor any trigger; raises as they do, all as before.

        Each part that was asked for before has its frame by then, exposed as its own recipe wants it.
        """
        cameras = [camera for source in self.sources if (camera := adjustable(source))]
        if old.camera == new.camera or not cameras:
            yield
            return
        sources = [source for source in self.sources if adjustable(source)]
        with contextlib.ExitStack() as stack:
            if self._orders is not None:
                stack.enter_context(self._orders.held())
            stack.enter_context(self._feed.held(sources))
            try:
                for camera in cameras:
                    camera.adjust(new.camera)
            except (UserError, OSError):
                for camera in cameras:
                    self._set_back(camera, old)
                raise
            yield

    @staticmethod
    def _set_back(camera: Adjustable, recipe: Recipe) -> None:
        """Set `camera` to what `recipe` needs; where it does not take that either, nobody knows what it has."""
        try:
            camera.adjust(recipe.camera)
        except (UserError, OSError) as error:
            camera.reopen(str(error))

    def dropped(self) -> dict[str, int]:
        """Return how many frames were captured but never judged, by the source's name."""
        counts: dict[str, int] = {}
        for source in self.sources:
            counts[source.name] = counts.get(source.name, 0) + self._feed.dropped(source)
        return counts

    def lost(self) -> list[str]:
        """Return the names of the sources that ended with an error or are being tried again; before `close`.

        A single source that gave as many frames as were asked for is not lost, whatever became of it then.
        """
        if len(self.sources) == 1 and self._taken == self._options.limit:
            return []
        failed = {id(source) for source, _ in self._feed.failures()}
        return [source.name for source in self.sources if id(source) in failed or source.state.startswith(LOST)]

    def states(self) -> list[SourceState]:
        """Return every source's state, in their order; any thread may ask."""
        return [
            SourceState(
                source.name,
                source.live,
                source.state,
                self._feed.dropped(source),
                source.reconnects,
                source.incomplete,
                source.missing,
            )
            for source in self.sources
        ]

    def run(self, tick: Callable[[], None] = lambda: None) -> None:
        """Judge until the end; `tick` is called after every round, at least every `TICK_S` seconds.

        A single source that fails raises its error when its frames are judged. Of several, one that fails is told on
        stderr and the others go on; the first error is raised when all have ended.
        """
        under_way: deque[UnderWay] = deque()
        try:
            while not self._stopping:
                arrivals, capture_ms = self._take(bool(under_way))
                for recipe, together in self._by_recipe(arrivals):
                    while under_way and not self._has_room(under_way, recipe):
                        self._finish(under_way.popleft())
                    under_way.append(self._judging.submit(recipe, together, capture_ms))
                if not (arrivals or under_way) and self._at_end():
                    break
                if under_way and (not arrivals or not self._has_room(under_way, under_way[-1].recipe)):
                    self._finish(under_way.popleft())
                if len(self.sources) > 1:
                    self._tell_failures()
                tick()
            while under_way:  # what was begun before a stop
                self._finish(under_way.popleft())
        finally:
            for batch in under_way:
                batch.discard()
        if self._taken != self._options.limit and not self._stopping:
            self._raise_failure()

    def _by_recipe(self, arrivals: Sequence[Arrival]) -> Iterator[tuple[Recipe, list[Arrival]]]:
        """Yield the frames that are judged together, in order."""
        for name, group in groupby(arrivals, lambda arrival: arrival.recipe):
            recipe, same = self.recipes[name], list(group)
            most = recipe.first.detector.session.max_batch
            for start in range(0, len(same), most):
                yield recipe, same[start : start + most]

    @staticmethod
    def _has_room(under_way: Sequence[UnderWay], recipe: Recipe) -> bool:
        """Whether frames of `recipe` can be submitted: those of another one, perhaps on its engine, are done before."""
        return under_way[0].recipe is recipe and len(under_way) < recipe.slots

    def _at_end(self) -> bool:
        return self._feed.ended or self._taken == self._options.limit

    def _take(self, busy: bool) -> tuple[list[Arrival], float]:
        """Return the next frames and the milliseconds waited for them; does not wait while a result is under way."""
        several = self._options.batch_cameras and len(self.sources) > 1
        session = self.recipes.in_force.first.detector.session
        most = min(len(self.sources), session.max_batch) if several else 1
        if self._options.limit is not None:
            most = min(most, self._options.limit - self._taken)
        started = time.perf_counter()
        if most == 0:
            return [], 0.0
        arrivals = self._feed.take(most, 0.0 if busy else TICK_S, self._options.gather_ms / 1e3 if several else 0.0)
        self._taken += len(arrivals)
        self._waited_ms += 1e3 * (time.perf_counter() - started)
        if not arrivals:
            return [], 0.0
        capture_ms, self._waited_ms = self._waited_ms, 0.0
        return arrivals, capture_ms

    def _finish(self, batch: UnderWay) -> None:
        recipe, withheld = batch.recipe, self.recipes.withheld(batch.recipe)
        for one in self._judging.finish(batch):
            result, parts = one.result, one.parts
            if withheld:
                result, parts = result.without_verdict(withheld), tuple(p.without_verdict(withheld) for p in parts)
            self._outgoing.judged(one.item.source, one.item.frame, result, one.view, one.item.order, recipe, parts)

    def _answer_without_frame(self, order: Order, reason: str) -> None:
        source = next(source for source in self.sources if source.name == order.source)
        self._outgoing.unanswered(source, order, reason)

    def _tell_failures(self) -> None:
        """Say once of each source of several that it failed, while others go on."""
        for source, error in self._feed.failures():
            place = self.sources.index(source)
            if place not in self._told and not self._feed.ended:
                self._told.add(place)
                say(f"error: {source.name} ended, the others go on: {error}")

    def _raise_failure(self) -> None:
        failures = self._feed.failures()
        if not failures:
            return
        source, error = failures[0]
        if len(self.sources) > 1 and isinstance(error, UserError):
            raise UserError(f"{source.name}: {error}") from error
        raise error

    def close(self) -> None:
        """Answer the triggers that wait, stop capturing and close the sources; a second call does nothing."""
        if self._orders is not None:
            self._orders.close()
        self.recipes.end()  # while cameras and audit are still there
        self._feed.close()
