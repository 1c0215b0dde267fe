"""How the numbers of good images are distributed, as training kept it for the line (`runtime.drift`)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

POINTS = 100  # of a distribution, of like mass
BINS = 10
MOST_NUMBERS, MOST_TAPS = 64, 64


@dataclass(frozen=True)
class Population:
    """Sorted `points` of each number over `count` held-out good images; `grids` has the rows of each tap's grid."""

    count: int
    points: Mapping[str, tuple[float, ...]]
    grids: Mapping[str, int]

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, float]], grids: Mapping[str, int]) -> "Population":
        """Return the distribution of images whose numbers are `rows`. Raises `ValueError` for none."""
        if not rows:
            raise ValueError("a population needs at least one image")
        shares = (np.arange(min(POINTS, len(rows))) + 0.5) / min(POINTS, len(rows))
        values = {name: np.quantile([row[name] for row in rows], shares, method="inverted_cdf") for name in rows[0]}
        points = {name: tuple(float(f"{one:.6g}") for one in found) for name, found in values.items()}
        return cls(len(rows), points, dict(grids))

    @classmethod
    def from_json(cls, value: Any) -> "Population":
        """Rebuild it. Raises `KeyError`, `TypeError` or `ValueError` for anything else."""
        count, points, grids = value["count"], value["points"], value["grids"]
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise ValueError(f"count must be 1 or more, not {count!r}")
        if not 0 < len(points) <= MOST_NUMBERS or len(grids) > MOST_TAPS:
            raise ValueError(f"{len(points)} numbers of {len(grids)} taps")
        sizes = {str(name): int(rows) for name, rows in grids.items()}
        if not all(1 <= rows <= 1 << 14 for rows in sizes.values()):
            raise ValueError(f"grids must have 1 to {1 << 14} rows")
        return cls(count, {str(name): _sorted_points(name, found) for name, found in points.items()}, sizes)

    def to_json(self) -> dict[str, Any]:
        """Return a value that `json` can write and `from_json` reads back equal."""
        points = {name: list(found) for name, found in self.points.items()}
        return {"count": self.count, "points": points, "grids": dict(self.grids)}

    def middle(self, name: str) -> tuple[float, float, float]:
        """Return the 10, 50 and 90 % quantile of a number."""
        low, middle, high = np.quantile(self.points[name], (0.1, 0.5, 0.9))
        return float(low), float(middle), float(high)

    def stability_index(self, name: str, values: ArrayLike, least: float) -> float:
        """Return the population stability index of a number's `values` (n,) against training's, n of 1 or more.

        The sum of (share - share in training) · ln(share / share in training) over ten bins of like share in training.
        Below 0.1 is usually called stable, above 0.25 a large change. Where training's images are all alike,
        within `least`, the bins are: below, alike, above. Each bin has half an image more, or an empty one would be
        infinite.
        """
        points, now = np.array(self.points[name]), np.array(values, np.float64)
        edges: NDArray[Any] = np.unique(np.quantile(points, np.arange(1, BINS) / BINS))
        if edges[-1] - edges[0] < 2 * least:
            edges = np.array([float(np.median(points)) - least, float(np.median(points)) + least])
        before, after = _shares(points, edges, self.count), _shares(now, edges, len(now))
        return float(np.sum((after - before) * np.log(after / before)))


def expected_index(count: int, values: int) -> float:
    """Return what the index of so many stationary `values` is on average, against `count` images: chance alone."""
    return (BINS - 1) * (1 / count + 1 / values)


def _shares(values: NDArray[Any], edges: NDArray[Any], count: int) -> NDArray[np.float64]:
    found = np.bincount(np.searchsorted(edges, values), minlength=len(edges) + 1) * (count / len(values))
    shares: NDArray[Any] = (found + 0.5) / (count + 0.5 * len(found))
    return shares


def _sorted_points(name: str, values: Any) -> tuple[float, ...]:
    points = tuple(float(value) for value in values)
    if not 1 <= len(points) <= POINTS or not all(map(math.isfinite, points)) or list(points) != sorted(points):
        raise ValueError(f"{name} must be 1 to {POINTS} ascending numbers")
    return points
