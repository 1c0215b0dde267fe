"""Curves by pixel as corners between which they run straight, and the areas under them."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from train.judging.thresholds import Scores

LEVELS = 2000  # of each rate, for a drawing


@dataclass(frozen=True, eq=False)
class CurvePoints:
    """Corners of the curves from the strictest cut on, all of length M, by descending score.

    Entry i is for the pixels whose score is at least `thresholds[i]`: their share of the normal pixels, their share of
    the anomalous pixels, and the mean over all ground-truth regions of the share of each. Between two entries the
    curves are straight lines. `below` is the next lower score of any pixel, minus infinity where there is none.
    """

    false_positive_rate: NDArray[np.float64]
    true_positive_rate: NDArray[np.float64]
    region_overlap: NDArray[np.float64]
    thresholds: Scores
    below: Scores

    def at(self, places: NDArray[Any]) -> "CurvePoints":
        """Return the corners at `places`, indices or a choice."""
        return CurvePoints(
            self.false_positive_rate[places],
            self.true_positive_rate[places],
            self.region_overlap[places],
            self.thresholds[places],
            self.below[places],
        )


class PixelCurves(ABC):
    """The curves from the strictest cut to "every pixel", over so many `normal` and `anomalous` pixels."""

    normal: int
    anomalous: int

    @abstractmethod
    def pieces(self) -> Iterator[CurvePoints]:
        """Yield all corners, some at a time, by descending score."""

    def area(self, rate: Callable[[CurvePoints], NDArray[np.float64]], limit: float) -> float:
        """Return the area under a rate over false-positive rates, from the origin to `limit`, by straight lines."""
        area, x, y = 0.0, 0.0, 0.0
        for piece in self.pieces():
            xs, ys = np.append(x, piece.false_positive_rate), np.append(y, rate(piece))
            area, x, y = area + area_between(xs, ys, limit), float(xs[-1]), float(ys[-1])
            if x >= limit:
                break
        return area

    @cached_property
    def drawn(self) -> CurvePoints:
        """Corners enough for a drawing: one for each of `LEVELS` of each rate, and the last."""
        kept = [piece.at(_first_of_levels(piece)) for piece in self.pieces()]
        return CurvePoints(
            *(np.concatenate(parts) for parts in zip(*(vars(each).values() for each in kept), strict=True))
        )


def _first_of_levels(points: CurvePoints) -> NDArray[np.intp]:
    rates = (points.false_positive_rate, points.true_positive_rate, points.region_overlap)
    first = [np.unique((LEVELS * each).astype(np.int64), return_index=True)[1] for each in rates]
    return np.unique(np.concatenate([*first, [len(points.thresholds) - 1]]))


def area_between(x: NDArray[np.float64], y: NDArray[np.float64], limit: float) -> float:
    """Return the area under `y` from `x[0]`, at most `limit`, along ascending `x` to `limit` or the end, by lines."""
    inside = int(np.searchsorted(x, limit, side="right"))
    area = np.sum(np.diff(x[:inside]) * (y[1:inside] + y[: inside - 1])) / 2
    if inside < len(x):  # the line to the next point, as far as the limit
        at_limit = np.interp(limit, (x[inside - 1], x[inside]), (y[inside - 1], y[inside]))
        area += (limit - x[inside - 1]) * (y[inside - 1] + at_limit) / 2
    return float(area)
