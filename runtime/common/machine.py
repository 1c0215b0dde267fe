"""What this process may use of the machine: cores and memory."""

import os
from pathlib import Path

STATM = Path("/proc/self/statm")


def available_cores() -> int:
    """Return how many cores this process may use: those of its affinity mask, which may be fewer than the machine's.

    A container's CPU quota is no part of that mask.
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def resident_bytes() -> int:
    """Return the resident memory of this process in bytes. Raises `OSError` where the system is no Linux."""
    return int(STATM.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
