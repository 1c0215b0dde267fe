"""The report of a period as one HTML file: nothing is loaded, and a browser prints it to PDF."""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from html import escape
from pathlib import Path
from typing import Any

from runtime.common.moments import parse_moment
from runtime.period import shadow
from runtime.period.facts import Facts
from runtime.period.html import Number, table_of
from runtime.period.pictures import picture_of
from runtime.period.span import Span
from runtime.result import VERDICTS

STYLE = """
body{font:15px/1.45 system-ui,sans-serif;color:#1d1d1f;max-width:60em;margin:2em auto;padding:0 1em}
h1{font-size:1.6em;margin:0}h2{font-size:1.15em;margin:2em 0 .4em;border-bottom:1px solid #ccc}
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.25em .6em .25em 0;vertical-align:top}
th{font-weight:600;border-bottom:1px solid #ccc}td{border-bottom:1px solid #eee;overflow-wrap:anywhere}
.n{text-align:right;font-variant-numeric:tabular-nums;overflow-wrap:normal}.soft{color:#666}
.figures{display:flex;flex-wrap:wrap;gap:2em;margin:1em 0}.figures b{display:block;font-size:1.6em}
.bar{display:flex;height:.9em;min-width:8em}.bar i{display:block}
.good{background:#5b9a68}.anomalous{background:#c8472b}.none{background:#9a9a9a}
.t{white-space:nowrap}.bad{color:#a22;font-weight:600}.worst{display:grid;grid-template-columns:repeat(auto-fill,minmax(13em,1fr));gap:1em}
figure{margin:0}figure img{width:100%;background:#eee}figcaption{font-size:.85em;overflow-wrap:anywhere}
.gone{background:#f2f2f2;color:#666;padding:3em 1em;text-align:center}
@page{size:A4;margin:15mm}@media print{body{margin:0;max-width:none;font-size:10.5pt}
h2{break-after:avoid}tr,figure{break-inside:avoid}thead{display:table-header-group}
*{print-color-adjust:exact;-webkit-print-color-adjust:exact}}
"""


def page(log: Path, span: Span, facts: Facts) -> str:
    """Return the report as HTML."""
    title = f"Inspection report: {span.title}"
    sections = [
        _figures(facts),
        _counts("By recipe", "Recipe", facts.by["recipe"]) if set(facts.by["recipe"]) - {""} else "",
        _counts("By source", "Source", facts.by["source"]),
        _counts("Over time", "From", facts.by["time"]),
        _reasons(facts),
        _checks(span, facts),
        _drifts(span, facts),
        _changes(span, facts),
        _engines(facts),
        shadow.section(log, span, facts.shadows),
        _worst(log, span, facts),
    ]
    written = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style>'
        f'<h1>{escape(title)}</h1><p class="soft">{_at(span, span.since_s)} to {_at(span, span.until_s)}. '
        f"From {escape(log.name)}, written {written}.</p>{''.join(sections)}</html>\n"
    )


def _figures(facts: Facts) -> str:
    total = facts.verdicts.total()
    if not total:
        return "<p><b>Nothing was judged in this period.</b></p>"
    cells = {"judged": total, **{_word(verdict): facts.verdicts[verdict] for verdict in VERDICTS}, "late": facts.late}
    boxes = [f"<div><b>{value:,}</b>{name}</div>" for name, value in cells.items()]
    for share, name in ((0.5, "median"), (0.99, "99 %")):
        if (ms := facts.answer_ms(share)) is not None:
            boxes.append(f"<div><b>{ms:g} ms</b>answer, {name}</div>")
    return f'<div class="figures">{"".join(boxes)}</div>{_marks(facts)}'


def _marks(facts: Facts) -> str:
    if facts.marked is None:
        return '<p class="soft">False alarms are not known: the log has no marks of operators.</p>'
    false, missed = facts.marked["false_alarm"], facts.marked["missed"]
    return f"<p>Marked by operators: false alarms {false}, missed {missed}.</p>"


def _word(verdict: str) -> str:
    return "without a verdict" if verdict == "none" else verdict


def _counts(heading: str, first: str, rows: dict[str, Counter[str]]) -> str:
    if not rows:
        return ""
    body = [
        [
            escape(name or "-"),
            *(Number.of(counts[verdict]) for verdict in VERDICTS),
            f'<div class="bar">{"".join(_stripes(counts))}</div>',
        ]
        for name, counts in rows.items()
    ]
    return f"<h2>{heading}</h2>" + table_of([first, *map(_word, VERDICTS), ""], body)


def _stripes(counts: Counter[str]) -> Iterable[str]:
    for verdict in VERDICTS:
        if counts[verdict]:
            yield f'<i class="{verdict}" style="flex:{counts[verdict]}"></i>'


def _reasons(facts: Facts) -> str:
    rows = [[escape(reason), Number.of(count)] for reason, count in facts.reasons.most_common(20)]
    return "<h2>Why there was no verdict</h2>" + table_of(["Reason", "Frames"], rows) if rows else ""


def _checks(span: Span, facts: Facts) -> str:
    rows = [
        [
            _at(span, check.time_s),
            escape(check.recipe or "-"),
            f'<span class="{"" if check.passed else "bad"}">{escape(check.text())}</span>{_failed(check.failures)}',
            escape(check.who),
            f'<span class="t">{check.engine_sha256[:12]}</span>',
        ]
        for check in facts.checks
    ]
    none = "<p>No check in this period.</p>"
    table = table_of(["Time", "Recipe", "Result", "Who", "Engine"], rows) if rows else none
    return "<h2>Checks of reference parts</h2>" + table + _more(facts.more_checks)


def _failed(failures: Sequence[dict[str, Any]]) -> str:
    return "".join(f"<br>{escape(part['name'])}: {escape(part['why'])}" for part in failures[:10])


def _drifts(span: Span, facts: Facts) -> str:
    rows = [
        [
            "before this log" if one.younger else _at(span, parse_moment(one.found)),
            escape(one.where),
            escape(one.what[:300]),
            "<br>".join(map(escape, one.acknowledged)) or "-",
            f"{_at(span, parse_moment(one.ended))}, {escape(one.ending)}" if one.ended else "stands",
        ]
        for one in facts.drifts
    ]
    head = ["Found", "Where", "What moved, and since when", "Acknowledged by", "Ended"]
    table = table_of(head, rows) if rows else "<p>No drift in this period.</p>"
    return "<h2>Drift</h2>" + table + _more(facts.more_drifts)


def _changes(span: Span, facts: Facts) -> str:
    rows = [
        [_at(span, parse_moment(one["time"])), *(escape(one[name][:200]) for name in ("what", "old", "new", "who"))]
        for one in facts.changes
    ]
    table = table_of(["Time", "What", "From", "To", "Who"], rows) if rows else "<p>No change in this period.</p>"
    return "<h2>Changes</h2>" + table + _more(facts.more_changes)


def _engines(facts: Facts) -> str:
    rows = [[escape(name), Number.of(count)] for name, count in facts.engines.most_common(50)]
    return "<h2>Engines</h2>" + table_of(["Engine, and the begin of its SHA-256", "Frames"], rows) if rows else ""


def _worst(log: Path, span: Span, facts: Facts) -> str:
    if not facts.worst:
        return ""
    shown = "".join(_figure(log, span, record) for record in facts.worst)
    return f'<h2>The highest scores, by their thresholds</h2><div class="worst">{shown}</div>'


def _figure(log: Path, span: Span, record: dict[str, Any]) -> str:
    data = picture_of(log, record)
    seen = f'<img src="{data}" alt="">' if data else '<div class="gone">no picture kept</div>'
    part = f"part {record['part']}, " if record["part"] else ""
    text = f"{part}{record['source']} {record['name']}, {_word(record['verdict'])}"
    score = f"score {record['score']:.4f}, threshold {record['threshold']:.4f}"
    time = _at(span, parse_moment(record["time"]))
    return f"<figure>{seen}<figcaption>{escape(text)}<br>{score}<br>{time}</figcaption></figure>"


def _at(span: Span, moment_s: float) -> str:
    return f'<span class="t">{span.at(moment_s):%Y-%m-%d %H:%M:%S %z}</span>'


def _more(count: int) -> str:
    return f'<p class="soft">and {count} more, which are in the log</p>' if count else ""
