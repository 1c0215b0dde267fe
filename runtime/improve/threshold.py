"""Another threshold: the one with the fewest mistakes on what the log holds, and no kind of mistake more than now.

A few marks prove little. So it must set right `FEWEST` parts at least, and a higher one needs as many real alarms that
stay above it: without them nothing would say how far it may rise.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from runtime.improve.evidence import Evidence
from runtime.improve.marked import Marked, by_part
from runtime.improve.proposal import Mistakes, Row, too_few
from runtime.improve.shares import FEWEST

KIND = "threshold"
Scores = NDArray[np.float64]


@dataclass(frozen=True)
class KnownScores:
    """Scores of labelled images by the engine in force: good (n,) and bad (m,)."""

    good: Scores
    bad: Scores


@dataclass(frozen=True)
class Chosen:
    """A threshold, with what it does."""

    value: float
    rows: tuple[Row, ...]
    marks: int


def choose(evidence: Evidence, known: KnownScores) -> Chosen | str:
    """Return a better threshold than the one in force; or why there is none."""
    if len(marks := evidence.at_threshold) < FEWEST:
        return too_few(len(marks), FEWEST, "marks at the threshold in force")
    good, bad = np.concatenate([evidence.good, known.good]), np.concatenate([evidence.bad, known.bad])
    value = _best(good, bad, evidence.threshold)
    if value is None:
        return "no other has fewer false alarms without a miss more, or fewer misses without a false alarm more"
    if (right := _set_right(marks, value)) < FEWEST:
        return f"the best one, {value:.4f}, sets {right} marked parts right; it needs at least {FEWEST}"
    if value > evidence.threshold and (found := int((bad > value).sum())) < FEWEST:
        return too_few(found, FEWEST, "real alarms above it, or known defects (--data), to say how far it may rise")
    rows = [row("judgements in the log", evidence.good, evidence.bad, evidence.threshold, value)]
    if len(known.good) + len(known.bad):
        rows.append(row("known parts (--data)", known.good, known.bad, evidence.threshold, value))
    return Chosen(value, tuple(rows), len(marks))


def row(on: str, good: Scores, bad: Scores, now: float, then: float) -> Row:
    """Return the mistakes of two thresholds on scores of good and bad parts."""
    ways = [Mistakes.of((good > value).tolist(), (bad > value).tolist()) for value in (now, then)]
    return Row(on, ways[0], ways[1])


def _best(good: Scores, bad: Scores, now: float) -> float | None:
    """Return the threshold with the fewest mistakes, halfway between two scores; None where none is better than `now`.

    Neither false alarms nor misses may become more; of equals it is the one with fewer misses.
    """
    lowest = min(now, float(bad.min(initial=np.inf)))
    below = float(good[good < lowest].max(initial=0.0))  # lower than that there are only more false alarms
    cuts = np.unique(np.concatenate([[below], good[good >= lowest], bad, [now]]))
    between = np.append((cuts[:-1] + cuts[1:]) / 2, cuts[-1])
    false_alarms = len(good) - np.searchsorted(np.sort(good), between, "right")
    misses = np.searchsorted(np.sort(bad), between, "right")
    allowed = (false_alarms <= (good > now).sum()) & (misses <= (bad <= now).sum())
    mistakes = np.where(allowed, false_alarms + misses, np.inf)
    if not mistakes.min() < (good > now).sum() + (bad <= now).sum():
        return None
    best = min(np.flatnonzero(mistakes == mistakes.min()), key=lambda index: misses[index])
    return float(between[best])


def _set_right(marks: Sequence[Marked], value: float) -> int:
    """Return how many parts are judged otherwise than they were marked as wrong for."""
    right = [mark for mark in marks if (mark.score > value) != mark.false_alarm]
    return len(by_part(right))
