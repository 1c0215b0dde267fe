"""What the inspection log knows of a period, counted as it is read: memory does not grow with its length."""

import heapq
import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from runtime.common.moments import parse_moment
from runtime.period import shadow
from runtime.period.span import Span
from runtime.records.checks import Check, checks
from runtime.records.drifts import DriftRecord, drifts, is_drift
from runtime.records.marks import has_marks, standing
from runtime.records.read import Query, audit, judgements
from runtime.records.shadows import Comparison
from runtime.result import by_threshold

WORST = 12  # pictures
MOST_ROWS = 500  # changes, and checks, in a report
BY = ("recipe", "source")


@dataclass
class Facts:
    """Counts of verdicts in all, and by recipe, source and time; the worst judgements, the worst first.

    `marked` counts what operators marked, None where the log has no marks. `answers_ms` counts answers by their time
    in milliseconds, rounded to two digits.
    """

    verdicts: Counter[str] = field(default_factory=Counter)
    by: dict[str, dict[str, Counter[str]]] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)
    late: int = 0
    answers_ms: Counter[float] = field(default_factory=Counter)
    engines: Counter[str] = field(default_factory=Counter)
    worst: list[dict[str, Any]] = field(default_factory=list)
    marked: Counter[str] | None = None
    changes: list[dict[str, Any]] = field(default_factory=list)
    more_changes: int = 0
    checks: list[Check] = field(default_factory=list)
    more_checks: int = 0
    shadows: dict[Comparison, shadow.Compared] = field(default_factory=dict)
    drifts: list[DriftRecord] = field(default_factory=list)
    more_drifts: int = 0

    def answer_ms(self, share: float) -> float | None:
        """Return the time within which that share of the answers came; None without any."""
        wanted, seen = math.ceil(share * self.answers_ms.total()), 0
        for ms, count in sorted(self.answers_ms.items()):
            seen += count
            if seen >= wanted:
                return ms
        return None


def gather(log: Path, span: Span) -> Facts:
    """Read the log of a span. Raises `UserError` or `OSError` for what is no log."""
    facts, marks = Facts(), standing(log)
    of_span: dict[int, dict[str, Any]] = {}  # marks of judgements of it
    facts.marked = Counter() if has_marks(log) else None
    facts.by = {name: defaultdict(Counter) for name in (*BY, "time")}
    heap: list[tuple[float, int, dict[str, Any]]] = []
    for record in judgements(log, Query(None, span.since_s, span.until_s), newest_first=False):
        _count(facts, record, span)
        if facts.marked is not None and (mark := marks.get(record["id"])):
            facts.marked[mark["kind"]] += 1
            of_span[record["id"]] = mark
        if record["score"] is not None:
            heapq.heappush(heap, (by_threshold(record["score"], record["threshold"]), -record["id"], record))
            if len(heap) > WORST:
                heapq.heappop(heap)
    facts.worst = [record for *_, record in sorted(heap, reverse=True)]
    rows = list(audit(log))
    within = [row for row in rows if span.since_s <= parse_moment(row["time"]) < span.until_s]
    changes = [row for row in within if not is_drift(row)]
    stood = [drift for drift in drifts(reversed(rows)) if _stood(drift, span)]
    facts.drifts, facts.more_drifts = stood[-MOST_ROWS:], max(0, len(stood) - MOST_ROWS)
    facts.changes, facts.more_changes = changes[:MOST_ROWS], max(0, len(changes) - MOST_ROWS)
    found = checks(log, span.since_s, span.until_s)
    facts.checks = list(islice(found, MOST_ROWS))
    facts.more_checks = sum(1 for _ in found)
    facts.shadows = shadow.gather(log, span, of_span)
    return facts


def _count(facts: Facts, record: dict[str, Any], span: Span) -> None:
    verdict = record["verdict"]
    facts.verdicts[verdict] += 1
    for name in BY:
        facts.by[name][record[name]][verdict] += 1
    facts.by["time"][span.bucket(parse_moment(record["time"]))][verdict] += 1
    if verdict == "none":
        facts.reasons[record["reason"][:200]] += 1
        if len(facts.reasons) > MOST_ROWS:  # reasons may hold names of files
            facts.reasons = Counter(dict(facts.reasons.most_common(MOST_ROWS // 2)))
    facts.late += record["late"]
    if record["answer_ms"] is not None:
        facts.answers_ms[_two_digits(record["answer_ms"])] += 1
    facts.engines[f"{record['engine'] or '?'} {(record['engine_sha256'] or '')[:12]}"] += 1


def _stood(drift: DriftRecord, span: Span) -> bool:
    """Whether a drift stood at some time of the span."""
    return parse_moment(drift.found) < span.until_s and (not drift.ended or parse_moment(drift.ended) >= span.since_s)


def _two_digits(ms: float) -> float:
    return float(f"{ms:.1e}")
