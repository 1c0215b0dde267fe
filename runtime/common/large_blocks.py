"""Large blocks of memory go back to the system when they are freed: what GNU's allocator does not do by itself."""

import contextlib
import ctypes

M_MMAP_THRESHOLD = -3  # of mallopt(3)
BYTES = 1 << 20


def give_back_large_blocks() -> None:
    """Have every block of a megabyte and more mapped on its own, from now on; elsewhere than with GNU's nothing.

    The bound grows with each block that is freed, up to 32 MiB. Pieces of 12-megapixel pictures would stay with each
    thread that has read or written one.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, BYTES)
