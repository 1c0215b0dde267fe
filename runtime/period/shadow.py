"""What candidates said in a period beside the engines that judged, and the pictures of the newest disagreements."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from runtime.common.binomial import mcnemar
from runtime.period.html import Number, table_of
from runtime.period.pictures import jpeg_of
from runtime.period.span import Span
from runtime.records.marks import FALSE_ALARM, MISSED
from runtime.records.shadow_reading import Marked, compared, marked, pictured, said_of
from runtime.records.shadows import ANOMALOUS, GOOD, Comparison, pictures_of

PICTURES = 12


@dataclass
class Compared:
    """Frames by `runtime.records.shadows.PAIRS`, and disagreements by the same; what was said of marked judgements."""

    frames: Counter[str] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)
    marked: Marked = field(default_factory=Marked.nothing)


def gather(log: Path, span: Span, marks: Mapping[int, Mapping[str, Any]]) -> dict[Comparison, Compared]:
    """Return what was compared in a span; `marks` are those that stand, of judgements of that span."""
    found: dict[Comparison, Compared] = {}
    for of, pair, frames, events in compared(log, span.since_s, span.until_s):
        one = found.setdefault(of, Compared())
        one.frames[pair] += frames
        one.events[pair] += events
    said = said_of(log, marks) if found and marks else {}
    for of, one in found.items():
        one.marked = marked(marks, said, of)
    return found


def section(log: Path, span: Span, found: Mapping[Comparison, Compared]) -> str:
    """Return it as HTML; empty where nothing was compared."""
    if not found:
        return ""
    head = ("Candidate", "Beside", "Compared", "The same", "Anomalous by the candidate only", "By the other only", "p")
    table = table_of(head, [_row(of, one) for of, one in found.items()])
    note = "p: McNemar's exact test of the disagreements; those of one part before a camera count once."
    return f'<h2>In shadow</h2>{table}<p class="soft">{note}</p>{_pictures(log, span)}'


def _row(of: Comparison, one: Compared) -> list[str]:
    same = one.frames["both_good"] + one.frames["both_anomalous"]
    p = mcnemar(one.events["running_only"], one.events["candidate_only"])
    numbers = (one.frames.total(), same, one.frames["candidate_only"], one.frames["running_only"])
    cells = [_engine(of.candidate, of.candidate_sha256) + _said(one.marked), _engine(of.running, of.running_sha256)]
    cells[1] += f"<br>recipe {escape(of.recipe)}" if of.recipe else ""
    return [*cells, *map(Number.of, numbers), Number(f"{p:.3g}")]


def _engine(name: str, sha256: str) -> str:
    return f'{escape(name)} <span class="t soft">{sha256[:12]}</span>'


def _said(marks: Marked) -> str:
    counts = marks.counts
    alarms = counts[FALSE_ALARM, GOOD] + counts[FALSE_ALARM, ANOMALOUS]
    missed = counts[MISSED, GOOD] + counts[MISSED, ANOMALOUS]
    words = f"<br>calls {counts[FALSE_ALARM, GOOD]} of {alarms} marked false alarms good" if alarms else ""
    return words + (f"<br>finds {counts[MISSED, ANOMALOUS]} of {missed} marked misses" if missed else "")


def _pictures(log: Path, span: Span) -> str:
    shown = []
    for row in pictured(log, PICTURES, since_s=span.since_s, until_s=span.until_s):
        data = jpeg_of(pictures_of(log) / row["picture"])
        seen = f'<img src="{data}" alt="">' if data else '<div class="gone">no picture kept</div>'
        by = row["of"].running if row["verdict"] == ANOMALOUS else row["of"].candidate
        text = f"{escape(row['source'])} {escape(row['name'])}, anomalous by {escape(by)} only"
        scores = f"scores {row['score']:.4f}, of the candidate {row['candidate_score']:.4f}"
        moment = f"{span.at(row['captured_s']):%Y-%m-%d %H:%M:%S %z}"
        shown.append(f"<figure>{seen}<figcaption>{text}<br>{scores}<br>{moment}</figcaption></figure>")
    return f'<div class="worst">{"".join(shown)}</div>' if shown else ""
