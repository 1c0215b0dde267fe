"""The training resize over several cores: Pillow's own, a strip of the result each, equal to the bit.

A strip's rows come from a box of the frame. Pillow takes what the filter needs beyond the box from the frame around
it, so a strip is what the whole result has there, provided that the box's edges are whole rows: then every
coefficient is computed from the same numbers.
"""

import math
import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from PIL import Image

MOST_STRIPS = 4  # beyond which handing out and copying cost what more cores save
STRIP_PIXELS = 250_000  # of the frame; with less, sinks and capture want the other cores more than a strip gains

Image8 = NDArray[np.uint8]


def resize_in_strips(rgb: Image8, size: tuple[int, int], cores: int) -> Image8:
    """Resize uint8 (H, W, 3) to `size` (height, width) as Pillow's bilinear filter does, by up to `cores` threads."""
    edges = strip_edges(rgb.shape[0], size[0], min(cores, MOST_STRIPS, rgb.shape[0] * rgb.shape[1] // STRIP_PIXELS))
    result: Image8 = np.empty((*size, 3), np.uint8)
    scale = rgb.shape[0] / size[0]
    support = math.ceil(max(scale, 1.0)) + 1  # rows that a strip's filter reads beyond its box

    def strip(first: int, last: int) -> None:
        top, bottom = round(first * scale), round(last * scale)
        start, stop = max(0, top - support), min(rgb.shape[0], bottom + support)
        box = (0, top - start, rgb.shape[1], bottom - start)
        part = Image.fromarray(rgb[start:stop])
        result[first:last] = np.asarray(part.resize((size[1], last - first), Image.Resampling.BILINEAR, box))

    others = [shared_pool().submit(strip, *edge) for edge in pairwise(edges[1:])]
    strip(edges[0], edges[1])  # by this thread, while they work
    for other in others:
        other.result()
    return result


def strip_edges(rows_in: int, rows_out: int, strips: int) -> list[int]:
    """Return the edges of about `strips` strips in rows of the result, each at a whole row of the frame.

    Such rows are `rows_out / gcd(rows_in, rows_out)` apart; where there is none, all is one strip.
    """
    step = rows_out // math.gcd(rows_in, rows_out)
    inner = {round(rows_out * number / strips / step) * step for number in range(1, strips)}
    return [0, *sorted(inner - {0, rows_out}), rows_out]


@cache
def shared_pool() -> ThreadPoolExecutor:
    """Return the threads that resize beside the one that asks."""
    return ThreadPoolExecutor(MOST_STRIPS - 1, "resize")


# a child has none of these threads, and would wait for them
os.register_at_fork(after_in_child=shared_pool.cache_clear)
