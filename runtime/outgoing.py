"""What leaves an inspection: judgements, and the answers to triggers that got no verdict in time."""

import math
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from typing import Any, Protocol

import numpy as np

from runtime.common.files import safe_name
from runtime.common.summary import Summary
from runtime.images.parts import Part
from runtime.images.view import View
from runtime.recipes.book import Recipes
from runtime.recipes.recipe import Recipe
from runtime.result import Result, Verdict
from runtime.sinks.judgement import Judgement
from runtime.sources.frame import LOST, Frame, Source, blank
from runtime.sources.naming import live_frame_name
from runtime.triggers.decision import Deciders
from runtime.triggers.options import DecideOptions
from runtime.triggers.orders import Orders
from runtime.triggers.station import Order


class Receiver(Protocol):
    """Takes judgements in order and, where they cannot be delivered at once, queues or drops and counts them."""

    def offer(self, judgement: Judgement) -> None:
        """Take one judgement; never waits for a sink of a live source."""
        ...


class Outgoing:
    """Offers every judgement to `receivers`, one at a time, whichever thread it comes from.

    With `orders` a judgement answers its trigger unless the deadline has: then it is only recorded. With `decide` it
    carries the line's decision. `recipes` are those of the run, whose id is `run`; an engine that is promoted
    begins another. `summary` counts what was judged.
    """

    def __init__(
        self,
        receivers: Sequence[Receiver],
        recipes: Recipes,
        orders: Orders | None = None,
        decide: DecideOptions | None = None,
        run: str = "",
    ) -> None:
        self.receivers = tuple(receivers)
        self.summary = Summary()
        self._recipes = recipes
        self._orders = orders
        self._run = run
        self._deciders = None if decide is None else Deciders(decide)
        self._one_at_a_time = threading.Lock()
        self._shapes: dict[str, tuple[int, ...]] = {}  # of the last frame, by source
        self._numbers = count(1)  # of answers without a frame

    def judged(
        self,
        source: Source,
        frame: Frame,
        result: Result,
        view: View | None,
        order: Order | None,
        recipe: Recipe,
        parts: tuple[Part, ...] = (),
    ) -> None:
        """Offer what a frame came to by `recipe`, as the answer to `order` if that is in time."""
        self._shapes[source.name] = frame.image.shape
        decision = self._decision(source, result, recipe)
        judgement = Judgement(source.name, frame, result, view, decision=decision, parts=parts, **self._of(recipe))
        if order is not None:
            judgement = replace(judgement, trigger=order.trigger, due_s=order.due_s)
            if self._orders is not None and not self._orders.finish(order):
                judgement = replace(judgement.too_late(time.monotonic()), answers=False)
        offering = time.perf_counter()
        self._offer(judgement)
        deliver_ms = 1e3 * (time.perf_counter() - offering)
        self.summary.add(judgement.result.verdict, {**result.latency_ms, "deliver": deliver_ms}, source.name)

    def _of(self, recipe: Recipe) -> dict[str, Any]:
        """Return what run and recipe say of a judgement, as its fields."""
        return {
            "run": recipe.run or self._run,
            "recipe": recipe.name,
            "engine_sha256": recipe.engine_sha256,
            "sidecar_sha256": recipe.sidecar_sha256,
            "maximum": recipe.maximum,
            "tiles": recipe.tiles,
        }

    def _decision(self, source: Source, result: Result, recipe: Recipe) -> Verdict | None:
        if self._deciders is None:
            return None
        state = (source.reconnects, recipe.key, result.threshold, result.map_threshold)
        return self._deciders.add(source.name, result.verdict, *state)

    def unanswered(self, source: Source, order: Order, reason: str) -> None:
        """Answer `order` without a verdict and without a frame."""
        if not order.bound:
            reason += f" (no frame of {source.name}" + (f", {source.state})" if source.state.startswith(LOST) else ")")
        number = next(self._numbers)
        name = live_frame_name(f"{safe_name(source.name)}_unanswered", number)
        image = blank(self._shapes.get(source.name, (64, 64, 3)))
        recipe = self._recipes[order.recipe]
        empty = np.zeros(recipe.first.detector.session.input_size, np.float32)
        result = Result(empty, math.nan, "none", *recipe.limits, {}, reason)
        frame = Frame(image, name, number, time.time())
        late = time.monotonic() >= order.due_s
        trigger, due_s = order.trigger, order.due_s
        said = self._of(recipe)
        self._offer(Judgement(source.name, frame, result, trigger=trigger, due_s=due_s, late=late, **said))

    def _offer(self, judgement: Judgement) -> None:
        with self._one_at_a_time:
            for receiver in self.receivers:
                receiver.offer(judgement)
