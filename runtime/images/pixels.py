"""What a picture is in this program."""

import numpy as np
from numpy.typing import NDArray

Image8 = NDArray[np.uint8]  # (H, W, 3), RGB


def every_nth(image: Image8, most: int) -> Image8:
    """Return a view of every n-th pixel of `image`, n as small as its longer side then has `most` pixels at most."""
    step = -(-max(image.shape[:2]) // most)
    return image[::step, ::step]
