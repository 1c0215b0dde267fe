"""How fast this machine reads its memory, the limit of a network whose weights do not stay in a cache."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from runtime.common.errors import UserError

MOST_BYTES = 2**30  # several times what caches hold, so that a pass finds next to nothing of the one before in them
MEMORY_SHARE = 4  # at most one part in so many of the available memory
PAGE_BYTES = 4096
LEAST_PASSES = 3  # of each kernel
HOW = (
    "memory: bytes read a second, the best pass of NumPy's maximum (64-bit, 8-bit, float32: the fastest) over one "
    "array a thread, together 1 GiB, or a quarter of the free memory where that is less"
)

Kernel = Callable[[NDArray[np.uint8]], Any]
# Each reads every byte once, keeps its result in registers, and leaves the interpreter's lock meanwhile. Which is
# fastest depends on the processor's vector instructions. A copy would count writes, and BLAS brings its own threads.
KERNELS: tuple[Kernel, ...] = (
    lambda part: np.maximum.reduce(part.view(np.int64)),
    lambda part: np.maximum.reduce(part),
    lambda part: np.maximum.reduce(part.view(np.float32)),
)


def read_gb_s(threads: int, seconds: float = 2.0, most_bytes: int = MOST_BYTES) -> float:
    """Return the 10^9 bytes a second that `threads` threads together read from memory.

    In a pass each thread reads its own array once, front to back. Passes go on for `seconds` (and `LEAST_PASSES` of
    each kernel), and the best one counts: what disturbs makes a pass slower, never faster.
    Raises `UserError` for fewer than one thread, `MemoryError` where the system does not give what it called free.
    """
    if threads < 1:
        raise UserError("threads must be 1 or more", str(threads))
    in_all = min(most_bytes, psutil.virtual_memory().available // MEMORY_SHARE)
    part_bytes = max(in_all // threads // PAGE_BYTES, 1) * PAGE_BYTES
    passes_s: list[float] = []
    with ThreadPoolExecutor(threads) as pool:
        # written, since pages that never were all read as the same one, from a cache
        parts = list(pool.map(lambda size: np.full(size, 1, np.uint8), [part_bytes] * threads))
        while len(passes_s) < LEAST_PASSES * len(KERNELS) or sum(passes_s) < seconds:
            kernel = KERNELS[len(passes_s) % len(KERNELS)]
            started = time.perf_counter()
            list(pool.map(kernel, parts))
            passes_s.append(time.perf_counter() - started)
    return threads * part_bytes / min(passes_s) / 1e9
