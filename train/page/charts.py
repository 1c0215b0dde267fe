"""Line charts as inline SVG: they take their colours from the page and need no script and no library."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import ArrayLike, NDArray

WIDTH, HEIGHT = 460, 300  # of a chart, in SVG units
LEFT, RIGHT, TOP, BOTTOM = 54, 14, 22, 44  # margins around the plot area
TICKS = 5  # about as many on each axis
POINTS = 500  # a thinned curve has no more

Points = NDArray[np.float64]


@dataclass(frozen=True)
class Axis:
    """What is drawn along one side of a chart, over low .. high."""

    label: str
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Curve:
    """A named line through the points x, y (M,) in axis units; `style` is the CSS class that colours it."""

    name: str
    style: str
    x: Points
    y: Points
    filled: bool = False
    marker: tuple[float, float] | None = None


@dataclass(frozen=True)
class Rule:
    """A vertical line across a chart with its name."""

    x: float
    label: str


def histogram_curve(name: str, style: str, heights: ArrayLike, edges: ArrayLike) -> Curve:
    """Return the stepped outline of a histogram: heights (B,) between edges (B + 1,)."""
    x = np.repeat(np.asarray(edges, np.float64), 2)
    y = np.concatenate([[0], np.repeat(np.asarray(heights, np.float64), 2), [0]])
    return Curve(name, style, x, y, filled=True)


def thin(x: Points, y: Points, points: int = POINTS) -> tuple[Points, Points]:
    """Return at most `points` of the points (M,) of a rising curve, ends included, evenly spread over both axes."""
    if len(x) <= points:
        return x, y
    # Looked up, not computed along the curve: M may be the number of pixels of a whole test set.
    levels = points // 2 - 1
    places = [np.searchsorted(values, np.linspace(values[0], values[-1], levels)) for values in (x, y)]
    kept = np.unique(np.concatenate([[0], *places, [len(x) - 1]]))
    return x[kept], y[kept]


def draw_chart(title: str, x_axis: Axis, y_axis: Axis, curves: Sequence[Curve], rule: Rule | None = None) -> str:
    """Return one chart as an HTML figure: the SVG and, below it, a legend."""
    scale = _Scale(x_axis, y_axis)
    description = f"{title}: {y_axis.label} against {x_axis.label}. " + "; ".join(curve.name for curve in curves)
    parts = [
        *_x_ticks(scale),
        *_y_ticks(scale),
        *(_draw_curve(curve, scale) for curve in curves),
        *(_draw_rule(rule, scale) if rule else ()),
        _text(scale.x(x_axis.high), HEIGHT - 6, x_axis.label, "end"),
        _text(LEFT - 40, TOP - 9, y_axis.label, "start"),
    ]
    svg = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(description)}">{"".join(parts)}</svg>'
    legend = "".join(f'<li class="{curve.style}">{escape(curve.name)}</li>' for curve in curves)
    return f'<figure class="chart"><h3>{escape(title)}</h3>{svg}<ul class="legend">{legend}</ul></figure>'


@dataclass(frozen=True)
class _Scale:
    """From axis units to SVG units."""

    x_axis: Axis
    y_axis: Axis

    def x(self, value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (value - self.x_axis.low) / (self.x_axis.high - self.x_axis.low)

    def y(self, value: float) -> float:
        share = (value - self.y_axis.low) / (self.y_axis.high - self.y_axis.low)
        return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * share


def _ticks(axis: Axis) -> list[float]:
    """Return round values within an axis: multiples of 1, 2 or 5 times a power of ten."""
    rough = (axis.high - axis.low) / TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.ceil(axis.low / step - 1e-9), math.floor(axis.high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def _x_ticks(scale: _Scale) -> Iterator[str]:
    bottom = HEIGHT - BOTTOM
    for value in _ticks(scale.x_axis):
        x = scale.x(value)
        yield f'<path class="tick" d="M{x:.1f} {bottom}v4"/>{_text(x, bottom + 17, f"{value:g}", "middle")}'


def _y_ticks(scale: _Scale) -> Iterator[str]:
    for value in _ticks(scale.y_axis):
        y = scale.y(value)
        yield f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>{_text(LEFT - 7, y + 4, f"{value:g}", "end")}'


def _draw_curve(curve: Curve, scale: _Scale) -> str:
    points = "L".join(f"{scale.x(x):.1f} {scale.y(y):.1f}" for x, y in zip(curve.x, curve.y, strict=True))
    style = f"{curve.style} filled" if curve.filled else curve.style
    path = f'<path class="curve {style}" d="M{points}"/>'
    if curve.marker:
        x, y = curve.marker
        path += f'<circle class="marker {curve.style}" cx="{scale.x(x):.1f}" cy="{scale.y(y):.1f}" r="5"/>'
    return path


def _draw_rule(rule: Rule, scale: _Scale) -> Iterator[str]:
    x = scale.x(rule.x)
    left_half = x < (LEFT + WIDTH - RIGHT) / 2
    yield f'<path class="rule" d="M{x:.1f} {TOP - 4}V{HEIGHT - BOTTOM}"/>'
    yield _text(x + (5 if left_half else -5), TOP + 5, rule.label, "start" if left_half else "end")


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
