"""A sequential test for a change that knows nothing of the distribution, and whose false alarms are bounded.

The rank of a value among all before it is, while nothing changes, evenly distributed and independent of the ranks
before, whatever the values' distribution is. So no reference has to be known well. Bettors bet on each rank being far
out: the mean of what a bet is multiplied with is 1 while nothing changes, and more afterwards. The mean of their CUSUMs
reaches a limit at most once in as many values on average (each is below a Shiryaev-Roberts sum, which minus its number
of values is a martingale).
"""

import base64
import bisect
import math
from array import array
from collections import deque
from dataclasses import dataclass, field
from typing import Any

BLOCKS_A_MONTH = 30 * 24 * 60  # at most: a block takes a minute or more
FEWEST = 50  # values before the first bet: an earlier rank can say little
MOST = 20_000  # values that are kept, two weeks; ranks against them alone bet too well, by about a sixth at the ends
ENDS = (0.03, 0.1, 0.2, 0.35)  # shares of all ranks, at either end, that a bettor puts `SURE` of its stake on
SURE = 0.9
BACK = 5  # values in a row within the reference's middle 90 % that end an alarm
SIGMAS = 1.349  # from the 25 to the 75 % quantile of a normal distribution
LATEST = 240  # values that can be taken back: those that came after the change, before it was found


@dataclass
class RankCusum:
    """Values come by `add`; `alarm` is on from where the CUSUM passes `limit` until values are back where they were.

    `since` is when the first value after the change came, as estimated; None without an alarm. `places` of ties come
    from `add`'s `u`, a number from 0 to 1. No bet is won by a value that is nearer to the median than `least`, however
    rare it is: so that makes alarms rarer only. Values are kept as float32.
    """

    limit: float
    least: float = 0.0
    alarm: bool = False
    since: float | None = None
    _sorted: "array[float]" = field(default_factory=lambda: array("f"))
    _logs: list[float] = field(default_factory=lambda: [0.0] * (2 * len(ENDS)))
    _starts: list[float] = field(default_factory=lambda: [0.0] * (2 * len(ENDS)))
    _back: int = 0
    _latest: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=LATEST))  # (when, value)

    def add(self, value: float, u: float, at: float) -> bool:
        """Take the next value, which came `at` some time; return whether it begins or ends an alarm."""
        (value,) = array("f", [value])
        if self.alarm:
            return self._is_back(value)
        known = len(self._sorted)
        low, high = bisect.bisect_left(self._sorted, value), bisect.bisect_right(self._sorted, value)
        p = (low + u * (high - low + 1)) / (known + 1)
        if known < MOST:
            self._sorted.insert(high, value)
            self._latest.append((at, value))
        if known < FEWEST:
            return False
        if abs(value - self._quantile(0.5)) < self.least:
            p = 0.5
        sums = self._bet(p, at)
        if sum(sums) < self.limit * len(sums):
            return False
        self.alarm, self.since, self._back = True, self._starts[sums.index(max(sums))], 0
        self._take_back(self.since)
        return True

    def _take_back(self, since: float) -> None:
        """Forget the values that came since the change: they are not what later ones shall come back to."""
        while self._latest and self._latest[-1][0] >= since and len(self._sorted) > FEWEST:
            self._sorted.pop(bisect.bisect_left(self._sorted, self._latest.pop()[1]))

    def _bet(self, p: float, at: float) -> list[float]:
        """Let every bettor bet on the rank `p`, 0 to 1; return their CUSUMs."""
        for i, far in enumerate((p, 1 - p)):
            for k, end in enumerate(ENDS, i * len(ENDS)):
                if self._logs[k] <= 0:
                    self._logs[k], self._starts[k] = 0.0, at
                self._logs[k] += math.log(SURE / end if far < end else (1 - SURE) / (1 - end))
        return [math.exp(min(value, 500.0)) for value in self._logs]

    @property
    def learned(self) -> int:
        """How many values later ones are held against."""
        return len(self._sorted)

    @property
    def reference(self) -> tuple[float, float, float]:
        """The 5, 50 and 95 % quantile of the values that later ones are held against."""
        low, middle, high = (self._quantile(share) for share in (0.05, 0.5, 0.95))
        return low, middle, high

    def _quantile(self, share: float) -> float:
        return self._sorted[round(share * (len(self._sorted) - 1))] if self._sorted else math.nan

    def moved(self, value: float) -> float:
        """Return by how many standard deviations `value` lies above the reference; one is `least` / 3 at least."""
        low, middle, high = (self._quantile(share) for share in (0.25, 0.5, 0.75))
        return (value - middle) / max((high - low) / SIGMAS, self.least / 3, 1e-9)

    def _is_back(self, value: float) -> bool:
        low, _, high = self.reference
        self._back = self._back + 1 if low <= value <= high else 0
        if self._back < BACK:
            return False
        self.alarm, self.since, self._logs = False, None, [0.0] * len(self._logs)
        return True

    def to_json(self) -> dict[str, Any]:
        """Return a value that `json` can write and `restore` takes."""
        known = base64.b64encode(self._sorted.tobytes()).decode()
        said = {"alarm": self.alarm, "since": self.since, "back": self._back, "latest": list(self._latest)}
        return {"known": known, "logs": list(self._logs), "starts": list(self._starts), **said}

    def restore(self, value: dict[str, Any]) -> None:
        """Go on where `to_json` was. Raises `KeyError`, `TypeError` or `ValueError`, unchanged, for anything else."""
        known = array("f", base64.b64decode(value["known"], validate=True))
        logs, starts = [float(one) for one in value["logs"]], [float(one) for one in value["starts"]]
        since = None if value["since"] is None else float(value["since"])
        latest = [(float(at), float(one)) for at, one in value["latest"]]
        if len(logs) != len(self._logs) or len(starts) != len(logs) or list(known) != sorted(known):
            raise ValueError("the test's numbers do not fit together")
        if not {one for _, one in latest} <= set(known):
            raise ValueError("the latest values must be among all")
        if bool(value["alarm"]) != (since is not None) or not all(map(math.isfinite, [*logs, *starts, *known])):
            raise ValueError("the test's numbers contradict each other")
        self._sorted, self._logs, self._starts = known, logs, starts
        self.alarm, self.since, self._back = bool(value["alarm"]), since, int(value["back"])
        self._latest = deque(latest, LATEST)
