"""How fast this machine reads its memory, the limit of a network whose weights do not stay in a cache."""

import os
import re
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.common.errors import UserError
from runtime.common.machine import available_cores
from runtime.report.machine import CPUS, read_text

MIB = 2**20
CACHE_MULTIPLE = 4  # a pass over so much more than the caches hold finds next to nothing in them
LEAST_BYTES = 512 * MIB  # a pass is to last much longer than handing it to the threads does
MOST_BYTES = 2048 * MIB
MEMORY_SHARE = 4  # at most one part in so many of the available memory
PAGE_BYTES = 4096
LEAST_ROUNDS = 3

HOW = (
    "memory: bytes read a second, the best pass of NumPy's maximum (64-bit, 8-bit, float32: the fastest) over one "
    "array a thread, together 4 times the last-level cache, 512 MiB at least, 2 GiB or a quarter of the free memory "
    "at most"
)

Part = NDArray[np.uint8]
Kernel = Callable[[Part], Any]

# Each reads every byte once, keeps its result in registers, and leaves the interpreter's lock meanwhile. Which is
# fastest depends on the processor's vector instructions. A copy would count writes, and BLAS brings its own threads.
KERNELS: tuple[Kernel, ...] = (
    lambda part: np.maximum.reduce(part.view(np.int64)),
    lambda part: np.maximum.reduce(part),
    lambda part: np.maximum.reduce(part.view(np.float32)),
)


def read_gb_s(
    threads: int,
    seconds: float = 2.0,
    root: Path = Path("/"),
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Return the 10^9 bytes a second that `threads` threads together read from memory.

    In a pass each thread reads its own array once, front to back, in one call of NumPy; counted are the arrays'
    bytes, nothing else, over the time from before the first thread starts until the last has ended. Together they
    are `CACHE_MULTIPLE` times the last-level caches of the cores that this process may use, so that a pass finds
    little of the one before in them. Passes go on for `seconds` (`LEAST_ROUNDS` of each kernel at least; filling the
    arrays takes some time more), and the best one counts: what disturbs makes a pass slower, never faster.

    Where a cache is so large that `MOST_BYTES` or the memory bound the arrays below that multiple, the figure may
    hold some of the cache's speed. `root` is where /proc and /sys are looked for, `clock` tells seconds.
    Raises `UserError` for fewer than one thread, `MemoryError` where the system does not give what it called free.
    """
    if threads < 1:
        raise UserError("threads must be 1 or more", str(threads))
    part_bytes = _bytes_to_read(root) // threads // PAGE_BYTES * PAGE_BYTES
    with ThreadPoolExecutor(threads) as pool:
        parts = list(pool.map(_filled, [max(part_bytes, PAGE_BYTES)] * threads))
        fastest_s = _fastest_pass(pool, parts, seconds, clock)
    return sum(part.nbytes for part in parts) / fastest_s / 1e9


def _fastest_pass(pool: ThreadPoolExecutor, parts: list[Part], seconds: float, clock: Callable[[], float]) -> float:
    """Return the seconds of the fastest pass of all kernels, which take turns."""
    passes_s: list[float] = []
    while len(passes_s) < LEAST_ROUNDS * len(KERNELS) or sum(passes_s) < seconds:
        kernel = KERNELS[len(passes_s) % len(KERNELS)]
        started = clock()
        list(pool.map(kernel, parts))
        passes_s.append(clock() - started)
    return min(passes_s)


def _filled(size: int) -> Part:
    """Return an array that was written: pages that never were all read as the same one, from a cache."""
    return np.full(size, 1, np.uint8)


def _bytes_to_read(root: Path) -> int:
    wanted = max(CACHE_MULTIPLE * last_level_cache_bytes(root, _usable_cores()), LEAST_BYTES)
    available = available_bytes(root)
    return min(wanted, MOST_BYTES, LEAST_BYTES if available is None else available // MEMORY_SHARE)


def _usable_cores() -> Iterable[int]:
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(available_cores())


def last_level_cache_bytes(root: Path, cores: Iterable[int]) -> int:
    """Return the bytes of the last-level caches of `cores`, one that several share once; 0 where none is told."""
    caches: dict[str, int] = {}
    for core in cores:
        levels = [_cache(index) for index in (root / CPUS / f"cpu{core}/cache").glob("index[0-9]*")]
        level, shared_by, size = max(levels, default=(0, "", 0))
        caches[shared_by or f"core {core}, level {level}"] = size
    return sum(caches.values())


def _cache(index: Path) -> tuple[int, str, int]:
    """Return a cache's level, the cores that share it, and its bytes."""
    level, size = read_text(index / "level"), re.fullmatch(r"(\d+)([KMG]?)", read_text(index / "size"))
    unit = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}
    size_bytes = int(size[1]) * unit[size[2]] if size else 0
    return int(level) if level.isdecimal() else 0, read_text(index / "shared_cpu_list"), size_bytes


def available_bytes(root: Path) -> int | None:
    """Return the memory that can still be had without swapping, within the container's limit; None if not told."""
    told = re.search(r"^MemAvailable:\s+(\d+) kB", read_text(root / "proc/meminfo"), re.MULTILINE)
    limit, used = (read_text(root / f"sys/fs/cgroup/memory.{name}") for name in ("max", "current"))
    bounds = [int(told[1]) * 1024] if told else []
    if limit.isdecimal() and used.isdecimal():  # without a limit it says "max"
        bounds.append(max(int(limit) - int(used), 0))
    return min(bounds, default=None)
