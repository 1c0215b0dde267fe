"""What a run was like: verdicts, frames per second, latency percentiles by stage."""

import time
from collections import Counter, deque
from collections.abc import Mapping

import numpy as np

PERCENTILES = (50, 95, 99)
KEPT = 100_000  # latencies a stage, the newest: an hour at 30 frames per second in under a megabyte


class Summary:
    """Collects verdicts and latencies; the clock for frames per second starts when it is made."""

    def __init__(self) -> None:
        self.verdicts: Counter[str] = Counter()
        self._started = time.perf_counter()
        self._latencies_ms: dict[str, deque[float]] = {}

    @property
    def frames(self) -> int:
        """Frames judged so far."""
        return self.verdicts.total()

    @property
    def fps(self) -> float:
        """Frames per second from the start until now, everything included."""
        return self.frames / (time.perf_counter() - self._started)

    def add(self, verdict: str, latency_ms: Mapping[str, float]) -> None:
        """Count one frame; `latency_ms` is milliseconds by stage."""
        self.verdicts[verdict] += 1
        for stage, ms in latency_ms.items():
            self._latencies_ms.setdefault(stage, deque(maxlen=KEPT)).append(ms)

    def percentiles_ms(self) -> dict[str, tuple[float, ...]]:
        """Return {stage: (p50, p95, p99)} in milliseconds."""
        return {
            stage: tuple(float(value) for value in np.percentile(np.array(latencies), PERCENTILES))
            for stage, latencies in self._latencies_ms.items()
        }

    def text(self, device: str, dropped: int = 0) -> str:
        """Return the summary as lines for a person."""
        counts = ", ".join(f"{self.verdicts[verdict]} {verdict}" for verdict in ("good", "anomalous"))
        lost = f", {dropped} dropped" if dropped else ""
        lines = [f"{self.frames} frames: {counts}{lost}", f"{self.fps:.1f} frames per second on {device}"]
        if self.frames:
            lines.append("milliseconds  " + "".join(f"{f'p{p}':>9}" for p in PERCENTILES))
        for stage, values in self.percentiles_ms().items():
            lines.append(f"  {stage:<12}" + "".join(f"{value:9.2f}" for value in values))
        return "\n".join(lines)
