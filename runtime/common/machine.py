"""What this process may use of the machine: cores and memory."""

import contextlib
import math
import os
from contextlib import suppress
from functools import cache
from pathlib import Path

ASSUMED_BYTES = 8 << 30  # of memory, where the system does not tell
STATUS = Path("/proc/self/status")
HANDLES, TASKS = Path("/proc/self/fd"), Path("/proc/self/task")
CPU_MAX = "cpu.max"  # version 2: "QUOTA PERIOD" in microseconds, "max PERIOD" without a quota
CFS_QUOTA, CFS_PERIOD = "cpu.cfs_quota_us", "cpu.cfs_period_us"  # version 1; a quota of -1 is none
# a container's, of cgroup version 2 and 1
MEMORY_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def available_cores(root: Path = Path("/")) -> int:
    """Return how many cores this process may use: those of its affinity mask, or fewer where a container has a quota.

    A quota of half a core more counts as one more: a thread too many waits, one too few leaves time unused. `root` is
    the folder that holds `proc` and `sys`.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota(root)
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


@cache  # a frame is resized by as many threads: not to be read for each
def _quota(root: Path) -> float | None:
    """Return the smallest CPU quota, in cores, of this process's control groups and of those around them."""
    found: list[float] = []
    with suppress(OSError, ValueError):  # no Linux, or no control groups
        for line in (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines():
            number, controllers, group = line.split(":", 2)
            if number == "0" and not controllers:
                found += _quotas(root / "sys/fs/cgroup", group)
            elif "cpu" in controllers.split(","):
                found += _quotas(root / "sys/fs/cgroup/cpu", group)
                found += _quotas(root / "sys/fs/cgroup/cpu,cpuacct", group)
    return min(found, default=None)


def _quotas(mount: Path, group: str) -> list[float]:
    """Return the quotas of `group` and of every group around it; inside a container it may not be mounted."""
    parts = [part for part in group.split("/") if part not in ("", ".", "..")]
    folders = [mount.joinpath(*parts[:depth]) for depth in range(len(parts), -1, -1)]
    return [quota for folder in folders if (quota := _quota_of(folder)) is not None]


def _quota_of(folder: Path) -> float | None:
    with suppress(OSError, ValueError):
        quota, period = (folder / CPU_MAX).read_text(encoding="ascii").split()
        return int(quota) / int(period) if quota != "max" and int(period) > 0 else None
    with suppress(OSError, ValueError):
        limit, every = (int((folder / name).read_text(encoding="ascii")) for name in (CFS_QUOTA, CFS_PERIOD))
        return limit / every if limit > 0 and every > 0 else None
    return None


def own_bytes() -> int:
    """Return the memory in bytes that this process alone wrote, in RAM or swapped out.

    The pages of files, such as libraries, are not counted: a system that is short of memory drops idle ones, and a leak
    would hide behind what they give back. Raises `OSError` where the system is no Linux.
    """
    lines = (line.split() for line in STATUS.read_text(encoding="utf-8", errors="replace").splitlines())
    return 1024 * sum(int(words[1]) for words in lines if words[0] in ("RssAnon:", "VmSwap:"))  # in KiB


def open_handles() -> int:
    """Return how many files, sockets and pipes this process holds open. Raises `OSError` where it is no Linux."""
    return sum(1 for _ in HANDLES.iterdir()) - 1  # without the one that lists them


def system_threads() -> int:
    """Return how many threads this process has, those of libraries too. Raises `OSError` where it is no Linux."""
    return sum(1 for _ in TASKS.iterdir())


def memory_bytes() -> int:
    """Return the memory that this process may use: the machine's, or its container's where that is less."""
    known = hasattr(os, "sysconf")
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if known else ASSUMED_BYTES]
    for file in MEMORY_LIMITS:
        with contextlib.suppress(OSError, ValueError):  # none here, or "max"
            limits.append(int(file.read_text(encoding="ascii")))
    return min(limits)
