"""What went on beside the measuring: other processes, a hypervisor's other guests, heat; and what to do about it."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from runtime.report.machine import gpu_values
from runtime.report.schema import Conditions
from runtime.report.statistics import Rounds, round_medians

MOST_OTHERS_SHARE, MOST_STOLEN_SHARE = 0.05, 0.02
MOST_SLOWDOWN = 0.05  # of the last rounds against the first, either way
MOST_UNREST = 0.05  # of a median, between one part of the measurement and the next
LEAST_ROUNDS = 3  # to have a first and a last third
IDLE = ("idle", "iowait")
THROTTLE_COUNTS = "sys/devices/system/cpu/cpu[0-9]*/thermal_throttle/core_throttle_count"
GPU_REASONS = "clocks_event_reasons.active"
# bits of it that are a fault of cooling or supply: hardware, thermal (driver, hardware), power brake; a limit is none
GPU_FAULTS = 0x08 | 0x20 | 0x40 | 0x80


@dataclass(frozen=True)
class SystemTimes:
    """Seconds of all cores since the start of the system, and those that this process and its children had."""

    total: float
    idle: float
    stolen: float
    own: float


class LoadWatch:
    """Looks at the system when a measurement begins and when it ends.

    `own` returns the ids of living children, whose time is not others'; children that are over need no naming once
    this process has waited for them. `root` is where /sys is looked for.
    """

    def __init__(self, own: Callable[[], Iterable[int]] = tuple, root: Path = Path("/")) -> None:
        self._own, self._root = own, root
        self.others_share = self.stolen_share = 0.0
        self.throttled: bool | None = None

    def __enter__(self) -> "LoadWatch":
        self._before, self._throttles = system_times(self._own()), _throttle_counts(self._root)
        return self

    def __exit__(self, *_: object) -> None:
        before, after = self._before, system_times(self._own())
        total = max(after.total - before.total, 1e-9)
        stolen = max(after.stolen - before.stolen, 0.0)
        busy = total - (after.idle - before.idle) - stolen
        self.stolen_share = stolen / total
        self.others_share = max(busy - max(after.own - before.own, 0.0), 0.0) / total
        self.throttled = self._is_throttled()

    def _is_throttled(self) -> bool | None:
        """Return whether heat or a failing supply lowered a clock of a core or of the GPU; None if neither is told."""
        told = [count > before for count, before in zip(_throttle_counts(self._root), self._throttles, strict=False)]
        with suppress(ValueError):
            told += [bool(int(bits, 16) & GPU_FAULTS) for bits in gpu_values([GPU_REASONS]).values()]
        return any(told) if told else None


def system_times(children: Iterable[int]) -> SystemTimes:
    """Return the times as they are now; `children` are ids of processes that belong to this one."""
    times = psutil.cpu_times()._asdict()
    spent = {name: seconds for name, seconds in times.items() if not name.startswith("guest")}  # in "user" already
    processes = [psutil.Process().cpu_times()]
    for pid in children:
        with suppress(psutil.NoSuchProcess):
            processes.append(psutil.Process(pid).cpu_times())
    own = sum(sum(process[:4]) for process in processes)  # user and system, its own and its children's
    return SystemTimes(sum(spent.values()), sum(spent.get(name, 0.0) for name in IDLE), spent.get("steal", 0.0), own)


def _throttle_counts(root: Path) -> list[int]:
    texts = (path.read_text().strip() for path in sorted(root.glob(THROTTLE_COUNTS)))
    return [int(text) for text in texts if text.isdecimal()]


def slowdown(rounds_by_row: Sequence[Rounds]) -> float | None:
    """Return how much longer runs took at the end: the last third of the rounds over the first, median over rows.

    Of each row the rounds in which it ran count, by their medians; rows with fewer than three do not. None where
    no row has enough.
    """
    by_row = [[value for value in round_medians(rounds) if value == value] for rounds in rounds_by_row]  # NaN: no run
    ratios = [
        np.median(medians[-(len(medians) // 3) :]) / np.median(medians[: len(medians) // 3])
        for medians in by_row
        if len(medians) >= LEAST_ROUNDS
    ]
    return float(np.median(ratios)) if ratios else None


def conditions(watch: LoadWatch, slowdown: float | None, unrest: float = 0.0) -> Conditions:
    """Return what `watch` saw and what `slowdown` found, with a warning for each that spoils figures.

    `unrest` is the median over rows of their noise (`statistics.noise`), a share.
    """
    troubles = {
        f"other processes used {watch.others_share:.0%} of the cores' time: close them": (
            watch.others_share > MOST_OTHERS_SHARE
        ),
        f"the host gave {watch.stolen_share:.0%} of the cores' time to other guests: measure on a host of its own": (
            watch.stolen_share > MOST_STOLEN_SHARE
        ),
        "clocks were lowered: cool the machine, check its power supply, and measure again": bool(watch.throttled),
        f"the last runs took {slowdown or 1:.2f} times as long as the first: cool or warm up the machine": (
            slowdown is not None and abs(slowdown - 1) > MOST_SLOWDOWN
        ),
        f"medians moved by {unrest:.0%} between parts of the measurement: trust ratios before times": (
            unrest > MOST_UNREST
        ),
    }
    warnings = tuple(text for text, is_met in troubles.items() if is_met)
    return Conditions(watch.others_share, watch.stolen_share, watch.throttled, slowdown, warnings)
