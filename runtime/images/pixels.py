"""What a picture is in this program."""

import numpy as np
from numpy.typing import NDArray

Image8 = NDArray[np.uint8]  # (H, W, 3), RGB
