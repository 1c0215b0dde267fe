"""Two reports side by side: what changed, and by how much more than the noise of both."""

from collections.abc import Iterator

from runtime.common.text_table import align
from runtime.report.ratios import anchor_row, full_to_encoder, times_anchor
from runtime.report.schema import Report

TIMES_NOISE = 3.0  # a change that the noise of the two medians rarely makes
LEAST_CHANGE = 0.02  # below that nothing is called a change, however quiet both were
HEADER = ("what", "before", "now", "now / before", "noise", "x noise", "")
Figure = tuple[float, float | None]  # milliseconds or a ratio, and its noise as a share where that is known


def compare(old: Report, new: Report) -> str:
    """Return every latency and ratio that both reports have as a table, and below it what they do not share."""
    before, now = dict(_figures(old)), dict(_figures(new))
    rows = [(what, *_change(before[what], figure)) for what, figure in now.items() if what in before]
    changed = sum(row[-1] in ("higher", "lower") for row in rows)
    lines = [
        f"compared with the report of {old.method.measured_at}: {changed} of {len(rows)} figures changed by more "
        f"than {TIMES_NOISE:g} times their noise and {100 * LEAST_CHANGE:g} %",
        align([HEADER, *rows]),
    ]
    first, second = (f"{report.machine.device}, {report.machine.cores} cores" for report in (old, new))
    if first != second:
        lines.append(f"the machines differ: {first}; now {second}")
    if keys := {row.key for row in old.rows} ^ {row.key for row in new.rows}:
        lines.append("in one of the two only: " + "; ".join(sorted(" ".join(key) for key in keys)))
    return "\n".join(lines) + "\n"


def _figures(report: Report) -> Iterator[tuple[str, Figure]]:
    for rows in report.groups():
        anchor = anchor_row(rows)
        for row in rows:
            title = " ".join((row.name, *row.key[2:]))
            for path, timing in (("network", row.network), ("verdict", row.verdict)):
                if timing:
                    yield f"{title}, {path}, p50 ms", (timing.p50, timing.noise)
            if row is not anchor and (times := times_anchor(row, anchor)):
                yield f"{title}, x {anchor.name}", times
            if share := full_to_encoder(row, rows):
                yield f"{title}, full / encoder", share


def _change(before: Figure, now: Figure) -> tuple[str, ...]:
    """Return the cells of a figure of both reports: the last says "same", "higher", "lower" or "too few runs"."""
    ratio, figures = now[0] / before[0], (f"{before[0]:.3g}", f"{now[0]:.3g}", f"{now[0] / before[0]:.3f}")
    if before[1] is None or now[1] is None:
        return *figures, "-", "-", "same" if abs(ratio - 1) <= LEAST_CHANGE else "too few runs"
    noise = max((before[1] ** 2 + now[1] ** 2) ** 0.5, 1e-9)
    times = abs(ratio - 1) / noise
    is_same = abs(ratio - 1) <= LEAST_CHANGE or times <= TIMES_NOISE
    verdict = "same" if is_same else "higher" if ratio > 1 else "lower"
    return *figures, f"{100 * noise:.1f} %", f"{min(times, 999):.1f}", verdict
