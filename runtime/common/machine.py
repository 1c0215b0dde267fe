"""What this process may use of the machine: cores and memory."""

import contextlib
import os
from pathlib import Path

ASSUMED_BYTES = 8 << 30  # of memory, where the system does not tell
STATM = Path("/proc/self/statm")
# a container's, of cgroup version 2 and 1
MEMORY_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


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


def memory_bytes() -> int:
    """Return the memory that this process may use: the machine's, or its container's where that is less."""
    known = hasattr(os, "sysconf")
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if known else ASSUMED_BYTES]
    for file in MEMORY_LIMITS:
        with contextlib.suppress(OSError, ValueError):  # none here, or "max"
            limits.append(int(file.read_text(encoding="ascii")))
    return min(limits)
