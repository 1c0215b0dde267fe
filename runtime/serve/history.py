"""What the page and the metrics tell of the past, in a bounded memory however long the run lasts."""

import threading
import time
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np

from runtime.common.files import printable
from runtime.common.summary import PERCENTILES
from runtime.result import VERDICTS, Verdict
from runtime.sinks.judgement import Judgement
from runtime.triggers.trigger import Trigger

RECENT = 3000  # frames whose scores the page shows and tries a threshold on
MINUTES = 24 * 60  # of which the lowest and highest score are kept
LATENCIES = 600  # a stage, the newest: what its percentiles are of
LATE_S = 120
PARTS = 20  # that were asked for, the newest
MOST_STAGES = 24
FPS_OVER_S = 5.0
BUCKETS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)

# number, captured_s, source, score, threshold, verdict, recipe
Point = tuple[int, float, str, float | None, float, Verdict, str]


@dataclass
class Stage:
    """One stage's latencies: a histogram since the start (`counts`, the last for what is slower) and the newest."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS_S) + 1))
    total_s: float = 0.0
    newest_ms: deque[float] = field(default_factory=lambda: deque(maxlen=LATENCIES))

    def add(self, ms: float) -> None:
        """Count one latency."""
        self.counts[bisect_left(BUCKETS_S, ms / 1e3)] += 1
        self.total_s += ms / 1e3
        self.newest_ms.append(ms)


@dataclass
class Minute:
    """One minute of all sources; `start_s` in seconds since 1970."""

    start_s: int
    lowest: float | None
    highest: float | None
    frames: int = 0
    anomalous: int = 0


class History:
    """Collects judgements from one thread or several and answers any other; every call is short."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._number = 0
        self._points: deque[Point] = deque(maxlen=RECENT)
        self._minutes: deque[Minute] = deque(maxlen=MINUTES)
        self._verdicts: Counter[tuple[str, str]] = Counter()
        self._stages: dict[str, Stage] = {}
        self._last_verdict_s: dict[str, float] = {}  # monotonic, by source
        self._reasons: dict[str, str] = {}  # by source
        self._judged: deque[float] = deque(maxlen=2048)  # monotonic seconds
        self._parts: deque[dict[str, Any]] = deque(maxlen=PARTS)

    def add(self, judgement: Judgement) -> int:
        """Count one judgement and return its number, from 1 up."""
        result, captured_s = judgement.result, judgement.frame.captured_s
        with self._lock:
            self._number += 1
            score, verdict = result.score, result.verdict
            of_frame = (self._number, captured_s, judgement.source, score, result.threshold, verdict)
            self._points.append((*of_frame, judgement.recipe))
            self._verdicts[judgement.source, result.verdict] += 1
            self._judged.append(time.monotonic())
            if verdict != "none":
                self._last_verdict_s[judgement.source] = self._judged[-1]
            self._reasons[judgement.source] = result.reason
            if judgement.trigger is not None:
                self._parts.appendleft(_part(self._number, judgement, judgement.trigger))
            self._add_to_minute(int(captured_s // 60) * 60, score, judgement.anomalous)
            for stage, ms in result.latency_ms.items():
                if stage in self._stages or len(self._stages) < MOST_STAGES:
                    self._stages.setdefault(stage, Stage()).add(ms)
            return self._number

    def _add_to_minute(self, start_s: int, score: float | None, anomalous: bool) -> None:
        late_s = self._minutes[-1].start_s - start_s if self._minutes else -1
        if not 0 <= late_s <= LATE_S:  # cameras need not deliver in order; a clock that was set back starts anew
            self._minutes.append(Minute(start_s, score, score))
        minute = self._minutes[-1]
        if score is not None:
            minute.lowest = score if minute.lowest is None else min(minute.lowest, score)
            minute.highest = score if minute.highest is None else max(minute.highest, score)
        minute.frames += 1
        minute.anomalous += anomalous

    def points_after(self, number: int) -> list[Point]:
        """Return the recent points with a number above `number`, in order."""
        with self._lock:
            wanted = min(max(0, self._number - number), len(self._points))
            return list(islice(self._points, len(self._points) - wanted, None))

    def minutes(self) -> list[tuple[int, float | None, float | None, int, int]]:
        """Return (start_s, lowest, highest, frames, anomalous) of the last 24 hours' minutes that had frames."""
        with self._lock:
            return [(m.start_s, m.lowest, m.highest, m.frames, m.anomalous) for m in self._minutes]

    def verdicts(self) -> dict[tuple[str, str], int]:
        """Return how often each (source, verdict) came."""
        with self._lock:
            return dict(self._verdicts)

    def age_s(self, source: str | None = None) -> float | None:
        """Return the seconds since the last verdict (of `source`); None before the first. No verdict is none."""
        with self._lock:
            moments = self._last_verdict_s
            last_s = max(moments.values(), default=None) if source is None else moments.get(source)
        return None if last_s is None else time.monotonic() - last_s

    def reason(self, source: str) -> str:
        """Return why the last frame of `source` has no verdict; empty where it has one."""
        with self._lock:
            return self._reasons.get(source, "")

    def fps(self) -> float:
        """Return the frames per second of all sources over the last seconds."""
        now = time.monotonic()
        with self._lock:
            judged = [moment for moment in self._judged if moment > now - FPS_OVER_S]
        return (len(judged) - 1) / (now - judged[0]) if len(judged) > 1 else 0.0

    def parts(self) -> list[dict[str, Any]]:
        """Return the last parts that a trigger asked for, the newest first, with the time their answer took."""
        with self._lock:
            return list(self._parts)

    def percentiles_ms(self) -> dict[str, tuple[float, ...]]:
        """Return {stage: (p50, p95, p99)} of the newest frames."""
        with self._lock:
            newest = {name: list(stage.newest_ms) for name, stage in self._stages.items()}
        return {name: tuple(np.percentile(values, PERCENTILES).tolist()) for name, values in newest.items()}

    def histograms(self) -> dict[str, tuple[list[int], float]]:
        """Return {stage: (counts by bucket of `BUCKETS_S` and above, sum in seconds)} since the start."""
        with self._lock:
            return {name: (list(stage.counts), stage.total_s) for name, stage in self._stages.items()}

    def counts(self) -> dict[str, int]:
        """Return how often each verdict came, of all sources."""
        total: Counter[str] = Counter()
        for (_, verdict), count in self.verdicts().items():
            total[verdict] += count
        return {verdict: total[verdict] for verdict in VERDICTS}


def _part(number: int, judgement: Judgement, trigger: Trigger) -> dict[str, Any]:
    result = judgement.result
    return {
        "number": number,
        "part": printable(trigger.part),
        "recipe": judgement.recipe,
        "source": judgement.source,
        "time": judgement.frame.captured_s,
        "verdict": result.verdict,
        "score": result.score,
        "reason": result.reason,
        "parts": [{"name": part.name, "verdict": part.result.verdict} for part in judgement.parts],
        "answer_ms": judgement.answer_ms,
    }


def as_rows(points: list[Point], names: dict[str, int], recipes: Sequence[str] = ()) -> list[list[Any]]:
    """Return points as JSON rows.

    Each is number, time, index of the source in `names`, score or null, threshold, verdict (0 for good, 1 for
    anomalous, 2 for none) and index of the recipe in `recipes` (-1: none).
    """
    of_recipe = {name: place for place, name in enumerate(recipes)}
    return [
        [
            number,
            time_s,
            names.setdefault(source, len(names)),
            score,
            limit,
            VERDICTS.index(verdict),
            of_recipe.get(recipe, -1),
        ]
        for number, time_s, source, score, limit, verdict, recipe in points
    ]
