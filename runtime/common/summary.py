"""What a run was like: verdicts, frames per second, latency percentiles by stage."""

import time
from collections import Counter
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

PERCENTILES = (50, 95, 99)
KEPT = 100_000  # latencies a stage, the newest: an hour at 30 frames per second in 0.4 MB


class Newest:
    """The newest `KEPT` numbers; its memory is taken whole at once, so that a long run does not grow."""

    def __init__(self) -> None:
        self._values: NDArray[np.float32] = np.full(KEPT, np.nan, np.float32)
        self._count = 0

    def add(self, value: float) -> None:
        """Take one number, in the place of the oldest."""
        self._values[self._count % KEPT] = value
        self._count += 1

    def values(self) -> NDArray[np.float32]:
        """Return those that are there, in no order."""
        return self._values[: min(self._count, KEPT)]


class Summary:
    """Collects verdicts and latencies; the clock for frames per second starts when it is made."""

    def __init__(self) -> None:
        self.verdicts: Counter[str] = Counter()
        self.frames = 0  # judged so far
        self._started = time.perf_counter()
        self._by_source: dict[str, Counter[str]] = {}
        self._latencies_ms: dict[str, Newest] = {}

    @property
    def fps(self) -> float:
        """Frames per second from the start until now, everything included."""
        return self.frames / (time.perf_counter() - self._started)

    def add(self, verdict: str, latency_ms: Mapping[str, float], source: str = "") -> None:
        """Count one frame of `source`; `latency_ms` is milliseconds by stage."""
        self.verdicts[verdict] += 1
        self.frames += 1
        if source not in self._by_source:
            self._by_source[source] = Counter()
        self._by_source[source][verdict] += 1
        for stage, ms in latency_ms.items():
            if stage not in self._latencies_ms:
                self._latencies_ms[stage] = Newest()
            self._latencies_ms[stage].add(ms)

    def percentiles_ms(self) -> dict[str, tuple[float, ...]]:
        """Return {stage: (p50, p95, p99)} in milliseconds."""
        return {
            stage: tuple(float(value) for value in np.percentile(newest.values(), PERCENTILES))
            for stage, newest in self._latencies_ms.items()
        }

    def text(self, device: str, dropped: int | Mapping[str, int] = 0) -> str:
        """Return the summary as lines for a person; `dropped` frames in all, or by source. Several have a line each."""
        by_source = dropped if isinstance(dropped, Mapping) else {}
        total = dropped if isinstance(dropped, int) else sum(dropped.values())
        lines = [_counts(self.verdicts, total)]
        names = {**dict.fromkeys(by_source), **dict.fromkeys(self._by_source)}
        if len(names) > 1:
            none: Counter[str] = Counter()
            lines += [f"  {name}: {_counts(self._by_source.get(name, none), by_source.get(name, 0))}" for name in names]
        lines.append(f"{self.fps:.1f} frames per second on {device}")
        if self.frames:
            lines.append("milliseconds  " + "".join(f"{f'p{p}':>9}" for p in PERCENTILES))
        for stage, values in self.percentiles_ms().items():
            lines.append(f"  {stage:<12}" + "".join(f"{value:9.2f}" for value in values))
        return "\n".join(lines)


def _counts(verdicts: Counter[str], dropped: int) -> str:
    counts = ", ".join(f"{verdicts[verdict]} {verdict}" for verdict in ("good", "anomalous"))
    if verdicts["none"]:
        counts += f", {verdicts['none']} without a verdict"
    return f"{verdicts.total()} frames: {counts}" + (f", {dropped} dropped" if dropped else "")
