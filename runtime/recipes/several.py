"""Several detectors, or one on several regions, judge one frame: one after the other, each what its view shows."""

import math

import numpy as np

from runtime.common.errors import UserError
from runtime.images.parts import NO_PICTURE, Part
from runtime.images.view import View
from runtime.recipes.recipe import Inspect, Recipe
from runtime.result import Result
from runtime.sources.frame import Frame


def judge(recipe: Recipe, place: int, frame: Frame, frozen: str, strict: bool) -> tuple[Part, ...]:
    """Return what each of the recipe's entries says of `frame`, of the source at `place` among the run's.

    None has a verdict where the picture is `frozen`; where a region does not fit, its own has none. `strict`: that
    raises `UserError` instead.
    """
    parts = tuple(_part(one, place, frame, strict) for one in recipe.inspects)
    return tuple(part.without_verdict(frozen) for part in parts) if frozen else parts


def _part(one: Inspect, place: int, frame: Frame, strict: bool) -> Part:
    view = one.views[place] if one.views else View()
    detector, maximum = one.detector, one.detector.sidecar.score_maximum
    try:
        if frame.fault:
            raise UserError(frame.fault)
        seen = np.ascontiguousarray(view(frame.image))
        detector.check(seen)
    except UserError as error:
        if strict and not frame.fault:
            raise
        empty = np.zeros(detector.session.input_size, np.float32)
        limits = (detector.threshold, detector.map_threshold)
        return Part(one.name, Result(empty, math.nan, "none", *limits, {}, str(error)), view, NO_PICTURE, maximum)
    result = view.inspected(detector(seen), detector.sidecar.scoring)
    height, width = seen.shape[:2]
    return Part(one.name, result, view, (height, width), maximum)
