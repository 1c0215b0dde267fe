"""How a candidate stands against the engine that judges, and why it may not take its place.

What people marked is known: a false alarm was a good part, a missed part a bad one. What nobody marked is taken to be
as the engine that judges says: whoever thinks otherwise marks it, and it counts.
"""

from dataclasses import dataclass
from typing import Any

from runtime.common.binomial import at_least, mcnemar
from runtime.records.marks import FALSE_ALARM, MISSED
from runtime.records.shadow_reading import Marked
from runtime.records.shadows import ANOMALOUS, GOOD, Counts

LEAST = 300  # frames, or parts: with none of them wrong, fewer than 1 % are, with 95 % confidence
MOST_SILENT = 0.01  # of the frames may the candidate give no verdict on
DOUBT = 0.05  # a p value below is no chance


@dataclass(frozen=True)
class Errors:
    """Disagreements by who was wrong: `better` ones in which the candidate is right, and `worse` ones."""

    better: int
    worse: int


def false_alarms(counts: Counts, marked: Marked) -> Errors:
    """Return false alarms that the candidate would not have had, and those that it alone would have had."""
    worse = max(0, counts.candidate_events - len(marked.events[MISSED]))
    return Errors(len(marked.events[FALSE_ALARM]), worse)


def misses(counts: Counts, marked: Marked) -> Errors:
    """Return missed parts that the candidate would have found, and anomalies that it would have let pass."""
    worse = max(0, counts.running_events - len(marked.events[FALSE_ALARM]))
    return Errors(len(marked.events[MISSED]), worse)


def reasons(counts: Counts, marked: Marked, trouble: str) -> list[str]:
    """Return why the candidate is not to judge, each in one line; nothing where all speaks for it."""
    found = []
    if trouble:
        found.append(f"the candidate fails: {trouble}")
    if counts.compared < LEAST:
        found.append(f"too few frames were compared: expected {LEAST}, found {counts.compared}")
    silent, seen = counts.failed + counts.candidate_none, counts.compared + counts.failed + counts.candidate_none
    if silent > MOST_SILENT * seen:
        found.append(f"the candidate gave no verdict on {silent} of {seen} frames")
    alarms, missed = false_alarms(counts, marked), misses(counts, marked)
    p = at_least(alarms.worse, alarms.better + alarms.worse)
    if p < DOUBT:
        found.append(f"more false alarms: {alarms.worse} of its own, {alarms.better} fewer (p = {p:.2g})")
    if missed.worse:
        found.append(
            f"it calls good what the engine in force calls anomalous, {missed.worse} times, and nobody marked that as "
            "a false alarm: look at the pictures, and mark what is one"
        )
    return found


def figures(counts: Counts, marked: Marked) -> dict[str, Any]:
    """Return what page and report show, as JSON has it."""
    alarms, missed = false_alarms(counts, marked), misses(counts, marked)
    return {
        "compared": counts.compared,
        "agree": counts.both_good + counts.both_anomalous,
        "p_value": mcnemar(counts.running_events, counts.candidate_events),
        "marks": {
            "false_alarms_gone": marked.counts[FALSE_ALARM, GOOD],
            "false_alarms_stay": marked.counts[FALSE_ALARM, ANOMALOUS],
            "misses_found": marked.counts[MISSED, ANOMALOUS],
            "misses_stay": marked.counts[MISSED, GOOD],
            "not_compared": marked.unknown,
        },
        "false_alarms": {"fewer": alarms.better, "more": alarms.worse},
        "misses": {"fewer": missed.better, "more": missed.worse},
    }
