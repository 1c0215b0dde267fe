"""What went on beside the measuring: other processes, a hypervisor's other guests, heat; and what to do about it."""

import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np

from runtime.report.machine import CPUS, Ask, ask_command, gpu_values, read_text
from runtime.report.schema import Conditions
from runtime.report.statistics import Rounds, round_medians

MOST_OTHERS_SHARE, MOST_STOLEN_SHARE = 0.05, 0.02
MOST_SLOWDOWN, LEAST_SLOWDOWN = 1.05, 0.95
MOST_UNREST = 0.05  # of a median, between one part of the measurement and the next
LEAST_ROUNDS = 3  # to have a first and a last third

USER, NICE, SYSTEM, IDLE, IOWAIT, IRQ, SOFTIRQ, STEAL = range(8)  # of /proc/stat; guests' time is in USER and NICE
UTIME, CUTIME = 11, 13  # of /proc/PID/stat behind the name, each with the system's time after it

# the reasons for a lower GPU clock that are a fault of cooling or supply; a power limit that was set is not one
GPU_REASONS = {
    0x08: "hardware slowdown",
    0x20: "thermal slowdown by the driver",
    0x40: "thermal slowdown by the hardware",
    0x80: "power brake",
}
ACTIVE_FIELDS = ("clocks_event_reasons.active", "clocks_throttle_reasons.active")  # by new drivers and old ones
COUNTERS = {  # newer drivers count the time of each reason, which tells of what passed between two looks too
    "clocks_event_reasons_counters.sw_thermal_slowdown": 0x20,
    "clocks_event_reasons_counters.hw_thermal_slowdown": 0x40,
    "clocks_event_reasons_counters.hw_power_brake_slowdown": 0x80,
}


@dataclass(frozen=True)
class _Ticks:
    """All cores' time since the start of the system, in ticks."""

    total: int
    busy: int  # neither idle nor stolen
    stolen: int


@dataclass(frozen=True)
class _Gpu:
    active: int  # bits of GPU_REASONS and others
    counters: dict[str, int]


@dataclass(frozen=True)
class _Sample:
    ticks: _Ticks | None
    own: int | None  # ticks of this process and its children
    throttles: dict[Path, int]  # how often each core was throttled
    gpu: _Gpu | None


def _nobody() -> Iterable[int]:
    return ()


class Watch:
    """Looks at the system before and after a measurement; all is None until the end, or where Linux does not tell.

    `own` returns the ids of living children (and their children) whose time is not others'; it is called at both
    looks. Children that are over need no naming once this process has waited for them: the system adds their time
    to this process's. `root` is where /proc and /sys are looked for, `ask` runs a command.

    The looks cost a few milliseconds, and with an NVIDIA GPU up to a second, outside of what they bracket.
    """

    def __init__(
        self, own: Callable[[], Iterable[int]] = _nobody, root: Path = Path("/"), ask: Ask = ask_command
    ) -> None:
        self._own, self._root, self._ask = own, root, ask
        self._before: _Sample | None = None
        self._after: _Sample | None = None

    def start(self) -> None:
        """Look for the first time."""
        gpu = _gpu(self._ask)  # before the times, so that they do not hold the asking
        self._before, self._after = self._sample(gpu), None

    def end(self) -> None:
        """Look for the last time."""
        sample = self._sample(None)  # the times first, for the same reason
        self._after = _Sample(sample.ticks, sample.own, sample.throttles, _gpu(self._ask))

    def __enter__(self) -> "Watch":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end()

    @property
    def others_share(self) -> float | None:
        """The share of all cores' time that neither this process, nor its children, nor idleness had, in [0, 1]."""
        spent = self._spent()
        if spent is None or self._before is None or self._after is None:
            return None
        if self._before.own is None or self._after.own is None:
            return None
        own = max(self._after.own - self._before.own, 0)  # less than none: one of `own` is gone, but was no child
        return max(spent.busy - own, 0) / spent.total  # two clocks, a tick apart: the difference may fall below 0

    @property
    def stolen_share(self) -> float | None:
        """The share of all cores' time that a hypervisor gave to other guests, in [0, 1]."""
        spent = self._spent()
        return None if spent is None else max(spent.stolen, 0) / spent.total

    @property
    def throttled(self) -> bool | None:
        """Whether heat or a failing supply lowered a clock of a core or of the GPU; None where neither is told."""
        if self._before is None or self._after is None:
            return None
        told = (self._before.throttles and self._after.throttles) or (self._before.gpu and self._after.gpu)
        return bool(self.throttled_by) if told else None

    @property
    def throttled_by(self) -> tuple[str, ...]:
        """What was throttled and why or how often, in words."""
        if self._before is None or self._after is None:
            return ()
        return (*_core_throttling(self._before, self._after), *_gpu_throttling(self._before.gpu, self._after.gpu))

    def _sample(self, gpu: _Gpu | None) -> _Sample:
        return _Sample(_cpu_ticks(self._root), self._own_ticks(), _throttles(self._root), gpu)

    def _own_ticks(self) -> int | None:
        own = _process_ticks(self._root, "self")
        children = set(self._own()) - {os.getpid()}
        return None if own is None else own + sum(_process_ticks(self._root, str(pid)) or 0 for pid in children)

    def _spent(self) -> _Ticks | None:
        """Return the ticks between the two looks, None where there are none or they are not known."""
        before, after = (sample.ticks if sample else None for sample in (self._before, self._after))
        if before is None or after is None or after.total <= before.total:
            return None
        return _Ticks(after.total - before.total, after.busy - before.busy, after.stolen - before.stolen)


def _cpu_ticks(root: Path) -> _Ticks | None:
    """Return the first line of /proc/stat, the sum over all cores."""
    line = re.match(r"cpu +((?:\d+ *)+)$", read_text(root / "proc/stat"), re.MULTILINE)
    if line is None:
        return None
    ticks = [int(text) for text in line[1].split()][: STEAL + 1]
    ticks += [0] * (STEAL + 1 - len(ticks))
    total = sum(ticks)
    return _Ticks(total, total - ticks[IDLE] - ticks[IOWAIT] - ticks[STEAL], ticks[STEAL])


def _process_ticks(root: Path, pid: str) -> int | None:
    """Return the ticks that a process and the children it has waited for have spent, None where it is gone."""
    fields = read_text(root / "proc" / pid / "stat").rpartition(")")[2].split()  # a name may hold spaces and brackets
    spent = fields[UTIME : CUTIME + 2]
    return sum(map(int, spent)) if len(spent) == CUTIME + 2 - UTIME and all(map(str.isdecimal, spent)) else None


def _throttles(root: Path) -> dict[Path, int]:
    paths = (root / CPUS).glob("cpu[0-9]*/thermal_throttle/core_throttle_count")
    texts = {path: read_text(path) for path in paths}
    return {path: int(text) for path, text in texts.items() if text.isdecimal()}


def _core_throttling(before: _Sample, after: _Sample) -> list[str]:
    growth = [count - before.throttles.get(path, count) for path, count in after.throttles.items()]
    most = max(growth, default=0)
    return [f"a core {most} time{'s' if most > 1 else ''}"] if most > 0 else []


def _gpu(ask: Ask) -> _Gpu | None:
    for field in ACTIVE_FIELDS:
        text = gpu_values([field], ask).get(field, "")
        if re.fullmatch(r"0[xX][0-9a-fA-F]+", text):
            return _Gpu(int(text, 16), _gpu_counters(ask))
    return None


def _gpu_counters(ask: Ask) -> dict[str, int]:
    values = gpu_values(list(COUNTERS), ask)
    return {name: int(value) for name, value in values.items() if value.isdecimal()}


def _gpu_throttling(before: _Gpu | None, after: _Gpu | None) -> list[str]:
    """Return the GPU with its reasons: seen at either look, or counted between them."""
    if before is None or after is None:
        return []
    grown = (name for name, value in after.counters.items() if value > before.counters.get(name, value))
    bits = before.active | after.active
    for name in grown:
        bits |= COUNTERS[name]
    reasons = [name for bit, name in GPU_REASONS.items() if bits & bit]
    return [f"the GPU ({', '.join(reasons)})"] if reasons else []


def slowdown(rounds_by_row: Sequence[Rounds]) -> float | None:
    """Return how much longer runs took at the end: the last third of the rounds over the first, median over rows.

    Of each row the rounds in which it ran count, by their medians; rows with fewer than three do not. None where
    no row has enough.
    """
    ratios = [ratio for ratio in map(_slowdown_of_row, rounds_by_row) if ratio is not None]
    return float(np.median(ratios)) if ratios else None


def _slowdown_of_row(rounds: Rounds) -> float | None:
    medians = [value for value in round_medians(rounds) if value == value]  # NaN: it did not run in that round
    if len(medians) < LEAST_ROUNDS:
        return None
    third = len(medians) // 3
    return float(np.median(medians[-third:]) / np.median(medians[:third]))


def conditions(watch: Watch, slowdown: float | None, unrest: float = 0.0) -> Conditions:
    """Return what `watch` saw and what `slowdown` found, with a warning for each that spoils figures.

    `unrest` is the median over rows of their noise (`statistics.noise`), a share.
    """
    checks = (
        _others_warning(watch.others_share),
        _stolen_warning(watch.stolen_share),
        _throttled_warning(watch.throttled_by),
        _slowdown_warning(slowdown),
        _unrest_warning(unrest),
    )
    warnings = tuple(warning for warning in checks if warning)
    return Conditions(watch.others_share, watch.stolen_share, watch.throttled, slowdown, warnings)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.1f} %"


def _others_warning(share: float | None) -> str:
    if share is None or share <= MOST_OTHERS_SHARE:
        return ""
    return f"others used {_percent(share)} of the cores' time: close what else runs"


def _stolen_warning(share: float | None) -> str:
    if share is None or share <= MOST_STOLEN_SHARE:
        return ""
    return f"the host gave {_percent(share)} of the cores' time to other guests: measure on a host of its own"


def _throttled_warning(by: Sequence[str]) -> str:
    return f"throttled: {' and '.join(by)}: cool the machine, check its power supply, and measure again" if by else ""


def _slowdown_warning(ratio: float | None) -> str:
    if ratio is None or LEAST_SLOWDOWN <= ratio <= MOST_SLOWDOWN:
        return ""
    if ratio > 1:
        return f"the last runs took {_percent(ratio - 1)} longer than the first: cool the machine, close what else runs"
    return f"the last runs took {_percent(1 - ratio)} less time than the first: warm up longer"


def _unrest_warning(unrest: float) -> str:
    if unrest <= MOST_UNREST:
        return ""
    return (
        f"medians moved by {_percent(unrest)} between parts of the measurement: clocks, or a host's other guests; "
        "trust ratios before times, or measure on a machine of its own"
    )
