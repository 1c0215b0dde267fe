"""What went on beside the measuring: other processes, a hypervisor's other guests, heat; and what to do about it."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
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
THROTTLE_COUNTS = "sys/devices/system/cpu/cpu[0-9]*/thermal_throttle/core_throttle_count"
GPU_REASONS = "clocks_event_reasons.active"
# bits of it that are a fault of cooling or supply: hardware, thermal (driver, hardware), power brake; a limit is none
GPU_FAULTS = 0x08 | 0x20 | 0x40 | 0x80


class LoadWatch:
    """Looks at the system when a measurement begins and when it ends; shares are of all cores' time, in [0, 1].

    `own` returns the ids of living children, whose time is not others'; children that are over need no naming once
    this process has waited for them. `root` is where /sys is looked for.
    """

    def __init__(self, own: Callable[[], Iterable[int]] = tuple, root: Path = Path("/")) -> None:
        self._own, self._root = own, root
        self.others_share = self.stolen_share = 0.0
        self.throttled: bool | None = None

    def __enter__(self) -> "LoadWatch":
        self._before, self._throttles = core_seconds(self._own()), self._throttle_counts()
        return self

    def __exit__(self, *_: object) -> None:
        after = core_seconds(self._own())
        spent = {name: max(seconds - self._before[name], 0.0) for name, seconds in after.items()}
        total, idle = spent["total"] or 1.0, spent["idle"] + spent["iowait"]
        self.stolen_share = spent["steal"] / total
        self.others_share = max(total - idle - spent["steal"] - spent["own"], 0.0) / total
        told = [after > before for before, after in zip(self._throttles, self._throttle_counts(), strict=False)]
        told += [bool(int(bits, 16) & GPU_FAULTS) for bits in gpu_values([GPU_REASONS]).values()]
        self.throttled = any(told) if told else None

    def _throttle_counts(self) -> list[int]:
        return [int(path.read_text()) for path in sorted(self._root.glob(THROTTLE_COUNTS))]


def core_seconds(children: Iterable[int]) -> dict[str, float]:
    """Return the seconds of all cores since the start of the system: in "total", and "own" with `children`'s."""
    times = psutil.cpu_times()._asdict()
    spent = {name: seconds for name, seconds in times.items() if not name.startswith("guest")}  # in "user" already
    processes = [psutil.Process().cpu_times()]
    for pid in children:
        with suppress(psutil.NoSuchProcess):
            processes.append(psutil.Process(pid).cpu_times())
    own = sum(sum(process[:4]) for process in processes)  # user and system, its own and its children's
    return {"iowait": 0.0, "steal": 0.0, **spent, "total": sum(spent.values()), "own": own}


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
    others, stolen, drift = watch.others_share, watch.stolen_share, slowdown or 1.0
    troubles = (
        (others > MOST_OTHERS_SHARE, f"other processes used {others:.0%} of the cores' time: close them"),
        (
            stolen > MOST_STOLEN_SHARE,
            f"other guests of the host had {stolen:.0%} of the cores' time: use one of its own",
        ),
        (watch.throttled, "clocks were lowered: cool the machine, check its power supply, and measure again"),
        (abs(drift - 1) > MOST_SLOWDOWN, f"the last runs took {drift:.2f} times as long as the first: cool or warm up"),
        (unrest > MOST_UNREST, f"medians moved by {unrest:.0%} under way: trust ratios before times"),
    )
    warnings = tuple(text for is_met, text in troubles if is_met)
    return Conditions(others, stolen, watch.throttled, slowdown, warnings)
