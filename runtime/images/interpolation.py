"""Linear interpolation between grids whose first and last positions are the same places, as a matrix."""

import numpy as np
from numpy.typing import NDArray


def interpolation(outputs: int, inputs: int) -> NDArray[np.float64]:
    """Return the matrix (outputs, inputs) of linear interpolation with the corners aligned, float64."""
    position = np.linspace(0, inputs - 1, outputs)
    matrix: NDArray[np.float64] = np.maximum(0, 1 - np.abs(position[:, None] - np.arange(inputs)))
    return matrix
