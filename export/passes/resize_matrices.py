"""The training resize as constant matrices: Pillow's bilinear filter, whose support grows with the reduction.

For n pixels to m, with s = n / m and f = max(s, 1), output i is centred at c = (i + 0.5) s on the input's axis and

    A[i, j] = tri((j + 0.5 - c) / f) / sum over the frame,    tri(x) = max(0, 1 - |x|)

for the pixels j whose centres lie within f of c, so every row of A sums to 1 and is at most 2 f + 1 wide. A frame is
resized by A_width first and A_height second, each pass rounded to a grey level. Pillow holds the weights of 8-bit
images in units of 2^-22; so do these matrices, because what an exact tie rounds to depends on those last bits.
(Pillow: src/libImaging/Resample.c, precompute_coeffs and normalize_coeffs_8bpc.)
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

FIXED_POINT = 1 << 22  # Pillow's units per 1.0; below 2^24, so that float32 holds each weight exactly


def resize_matrix(inputs: int, outputs: int) -> NDArray[np.float64]:
    """Return A (outputs, inputs), non-negative, in whole units of 2^-22. Raises `ValueError` for a size below 1."""
    if inputs < 1 or outputs < 1:
        raise ValueError(f"a resize needs at least 1 pixel on both sides, got {inputs} to {outputs}")
    scale = inputs / outputs
    support = max(scale, 1.0)
    matrix = np.zeros((outputs, inputs))
    for i in range(outputs):
        centre = (i + 0.5) * scale
        first = max(0, int(centre - support + 0.5))
        last = min(inputs, int(centre + support + 0.5))
        weights = np.maximum(0.0, 1.0 - np.abs((np.arange(first, last) - centre + 0.5) * (1 / support)))
        matrix[i, first:last] = np.floor(0.5 + weights / weights.sum() * FIXED_POINT) / FIXED_POINT
    return matrix


@dataclass(frozen=True, eq=False)
class Band:
    """Rows `first_output ..` of a matrix without its zeros: `weights` (outputs, inputs) read from `first_input` on."""

    first_input: int
    first_output: int
    weights: NDArray[np.float64]

    @property
    def inputs(self) -> slice:
        """The stretch of the axis that this band reads."""
        return slice(self.first_input, self.first_input + self.weights.shape[1])


def split_into_bands(matrix: NDArray[np.float64], count: int) -> list[Band]:
    """Cut `matrix` (outputs, inputs) into `count` bands of whole rows, as equal as they come."""
    edges = [round(i * len(matrix) / count) for i in range(count + 1)]
    bands = []
    for start, stop in pairwise(edges):
        used = np.flatnonzero(matrix[start:stop].any(axis=0))
        bands.append(Band(int(used[0]), start, matrix[start:stop, used[0] : used[-1] + 1]))
    return bands


@dataclass(frozen=True, eq=False)
class RepeatedRows:
    """`phases` rows (phases, taps) that make a resize when they step over an axis padded with zeros.

    Step t, phase p is output t * phases + p; the first tap of step 0 lies `before` pixels outside the axis, the last of
    the last step `after`. `shares_inside` (outputs,) tells what part of an output's weights lies on the axis
    itself; the output must be divided by it.
    """

    weights: NDArray[np.float64]
    before: int
    after: int
    shares_inside: NDArray[np.float64]


def repeated_rows(inputs: int, outputs: int, phases: int) -> RepeatedRows:
    """Return the rows that repeat along a resize. Raises `ValueError` unless all steps are of whole pixels."""
    if outputs % phases or inputs * phases % outputs:
        raise ValueError(f"{inputs} to {outputs} does not repeat every {phases} outputs")
    stride = inputs * phases // outputs
    scale = inputs / outputs
    support = max(scale, 1.0)
    centres = (np.arange(phases) + 0.5) * scale
    first = min(0, math.floor(centres[0] - support))
    last = max(stride, math.ceil(centres[-1] + support))
    offsets = np.arange(first, last) + 0.5 - centres[:, None]
    weights = np.maximum(0.0, 1.0 - np.abs(offsets) / support)
    weights = np.rint(weights / weights.sum(axis=1, keepdims=True) * FIXED_POINT) / FIXED_POINT
    steps = outputs // phases
    positions = np.arange(first, last) + stride * np.arange(steps)[:, None]  # (steps, taps)
    inside = ((positions >= 0) & (positions < inputs)).astype(np.float64)
    shares = inside @ weights.T / weights.sum(axis=1)  # (steps, phases)
    shares[inside.all(axis=1)] = 1  # to the last bit: Pillow has no factor there
    return RepeatedRows(weights, -first, last - stride, shares.reshape(outputs))
